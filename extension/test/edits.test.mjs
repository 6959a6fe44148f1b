import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { boost, find, toggle, toggleSkip } = await load('edits');

const card = (kind, extra = {}) => ({
  kind, text: '', enabled: true, layers: [3], experts: [5], tokens: 'all', phase: 'all', ...extra
});
const plan = (...edits) => ({ version: 7, hash: '', text: '', warnings: [], undo: false, redo: false, edits });
const all = { layer: 3, position: 2, scope: 'all' };
const one = { layer: 3, position: 2, scope: 'token' };

test('a first click adds the edit with its scope', () => {
  assert.deepEqual(toggle(plan(), 'reroute.ban', all, 5), {
    type: 'add', edit: { kind: 'reroute.ban', layers: [3], experts: [5], tokens: 'all' }
  });
  assert.deepEqual(toggle(plan(), 'reroute.force', one, 5).edit.tokens, [2]);
});

test('the same click takes it back, the other one replaces it', () => {
  const now = plan(card('skip.block', { experts: [] }), card('reroute.ban'));
  assert.deepEqual(toggle(now, 'reroute.ban', all, 5), { type: 'remove', version: 7, index: 1 });
  assert.equal(toggle(now, 'reroute.force', all, 5).type, 'replace');
  assert.equal(toggle(now, 'reroute.force', all, 5).edit.kind, 'reroute.force');
});

test('an edit of another scope, expert, layer or phase, or one that is off, is left alone', () => {
  for (const other of [
    { tokens: [2] }, { tokens: { start: 0, stop: null } }, { experts: [5, 6] }, { experts: [4] }, { layers: [2] },
    { layers: [3, 4] }, { layers: null }, { phase: 'decode' }, { enabled: false }
  ]) {
    assert.equal(toggle(plan(card('reroute.ban', other)), 'reroute.ban', all, 5).type, 'add', JSON.stringify(other));
  }
  assert.equal(find(plan(card('reroute.ban', { tokens: [2] })), ['reroute.ban'], one, 5), 0);
});

test('a boost adds up, and one that comes to nothing leaves the plan', () => {
  const bias = delta => plan(card('reroute.bias', { delta }));
  assert.deepEqual(boost(plan(), one, 5, 1), {
    type: 'add', edit: { kind: 'reroute.bias', layers: [3], delta: { 5: 1 }, tokens: [2] }
  });
  assert.deepEqual(boost(bias(1), all, 5, 1).edit.delta, { 5: 2 });
  assert.equal(boost(bias(1), all, 5, 1).type, 'replace');
  assert.deepEqual(boost(bias(1), all, 5, -1), { type: 'remove', version: 7, index: 0 });
  assert.equal(boost(bias(null), all, 5, 1).type, 'add', 'a bias of another kind is left alone');
});

test('a block is skipped and brought back', () => {
  assert.deepEqual(toggleSkip(plan(), 3), { type: 'add', edit: { kind: 'skip.block', layers: [3] } });
  const now = plan(card('skip.block', { experts: [] }));
  assert.deepEqual(toggleSkip(now, 3), { type: 'remove', version: 7, index: 0 });
  assert.equal(toggleSkip(now, 2).type, 'add');
});
