import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { changesPlan, hope } = await load('hopes');
const { find, toggle } = await load('edits');

const ban = { kind: 'reroute.ban', layers: [3], experts: [5], tokens: 'all' };
const card = (expert, extra = {}) => ({
  kind: 'reroute.ban', text: { text: 'ban expert %1 in layer 3', values: [expert] }, enabled: true, layers: [3], experts: [expert], delta: null,
  tokens: 'all', phase: 'all', data: { ...ban, experts: [expert] }, ...extra
});
const plan = (...edits) => ({
  version: 7, hash: 'h', text: '', python: '', warnings: [], kept: [], undo: true, redo: false, edits, earlier: [], later: null
});
const all = { layer: 3, position: 2, scope: 'all' };
const experts = hoped => hoped.edits.map(edit => edit.experts[0]);

test('an edit that is asked for stands in the plan at once, marked, and the hash is still that of the plan that holds', () => {
  const hoped = hope(plan(card(1)), { type: 'add', edit: ban });
  assert.deepEqual(experts(hoped), [1, 5]);
  assert.equal(hoped.pending, true);
  assert.equal(hoped.hash, 'h');
  assert.equal(hoped.edits[0].pending, undefined, 'what holds is not marked');
  assert.equal(hoped.edits[1].pending, true);
  assert.deepEqual(hoped.edits[1].text, { text: '%1 in layer %2', values: [{ text: '%1 expert %2', values: ['ban', '5'] }, '3'] });
});

test('a second click before the answer means the plan as it will be', () => {
  const once = hope(plan(), toggle(plan(), 'reroute.ban', all, 5));
  assert.equal(find(once, ['reroute.ban'], all, 5), 0);
  assert.deepEqual(toggle(once, 'reroute.force', all, 5), {
    type: 'replace', version: 8, index: 0, edit: { kind: 'reroute.force', layers: [3], experts: [5], tokens: 'all' }
  });
  const twice = hope(once, toggle(once, 'reroute.ban', all, 5));
  assert.deepEqual([twice.edits, twice.version, twice.pending], [[], 9, true]);
});

test('edits leave, move, are switched off and replaced', () => {
  const start = plan(card(1), card(2), card(3));
  assert.deepEqual(experts(hope(start, { type: 'remove', version: 7, index: 1 })), [1, 3]);
  assert.deepEqual(experts(hope(start, { type: 'move', version: 7, index: 0, to: 2 })), [2, 3, 1]);
  assert.equal(hope(start, { type: 'enable', version: 7, index: 2, enabled: false }).edits[2].enabled, false);
  assert.deepEqual(experts(hope(start, { type: 'replace', version: 7, index: 0, edit: ban })), [5, 2, 3]);
  assert.deepEqual(experts(hope(start, { type: 'clear' })), []);
  assert.equal(start.edits.length, 3, 'the plan that holds is left alone');
});

test('a request that will be refused changes nothing', () => {
  const start = plan(card(1));
  for (const request of [
    { type: 'remove', version: 6, index: 0 }, { type: 'remove', version: 7, index: 4 }, { type: 'redo' },
    { type: 'select', layer: 1, position: 0 }
  ]) {
    assert.equal(hope(start, request), start, request.type);
  }
  assert.equal(hope(plan(), { type: 'clear' }).pending, undefined);
});

test('undo and redo give back what the kernel has told', () => {
  const start = { ...plan(card(1)), earlier: [card(2)], later: [card(3)], redo: true };
  const back = hope(start, { type: 'undo' });
  assert.deepEqual([experts(back), back.undo, back.redo, back.pending], [[2], false, true, true]);
  assert.deepEqual(experts(hope(back, { type: 'redo' })), [1]);
  assert.deepEqual(experts(hope(start, { type: 'redo' })), [3]);
});

test('what only the kernel knows is marked as asked for', () => {
  for (const type of ['exchange', 'imitate', 'load', 'recall']) {
    const hoped = hope(plan(card(1)), { type });
    assert.deepEqual([experts(hoped), hoped.pending, changesPlan({ type })], [[1], true, true]);
  }
  assert.equal(changesPlan({ type: 'keep', name: 'x' }), false);
});
