import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { boost, find, placeOf, replay, rerouting, scaleWeight, scaled, toggle, toggleHead, toggleNeurons, toggleSkip, wordsOf } = await load('edits');

const card = (kind, extra = {}) => ({
  kind, text: '', enabled: true, layers: [3], experts: [5], tokens: 'all', phase: 'all', data: {}, ...extra
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
    { layers: [3, 4] }, { layers: null }, { phase: 'decode' }, { enabled: false }, { data: { where: 'margin < 0.05' } },
    { data: { steps: [1] } }
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

test('a block or a sublayer is skipped where the scope says, and brought back', () => {
  assert.deepEqual(toggleSkip(plan(), 'skip.block', all), { type: 'add', edit: { kind: 'skip.block', layers: [3], tokens: 'all' } });
  assert.deepEqual(toggleSkip(plan(), 'skip.mlp', one).edit, { kind: 'skip.mlp', layers: [3], tokens: [2] });
  const now = plan(card('skip.block', { experts: [] }), card('skip.attention', { experts: [], tokens: [2] }));
  assert.deepEqual(toggleSkip(now, 'skip.block', all), { type: 'remove', version: 7, index: 0 });
  assert.deepEqual(toggleSkip(now, 'skip.attention', one), { type: 'remove', version: 7, index: 1 });
  assert.equal(toggleSkip(now, 'skip.attention', all).type, 'add', 'another scope is another edit');
  assert.equal(toggleSkip(now, 'skip.mlp', all).type, 'add');
});

test('neurons are masked by a criterion and let go again', () => {
  assert.deepEqual(toggleNeurons(plan(), one, 0.5, 'magnitude').edit, { kind: 'mask.neurons', layers: [3], tokens: [2], ratio: 0.5, criterion: 'magnitude' });
  const now = plan(card('mask.neurons', { experts: [], data: { ratio: 0.5, criterion: 'magnitude' } }));
  assert.deepEqual(toggleNeurons(now, all, 0.5, 'magnitude'), { type: 'remove', version: 7, index: 0 });
  assert.equal(toggleNeurons(now, all, 0.5, 'random').type, 'add');
  assert.equal(toggleNeurons(now, all, 0.25, 'magnitude').type, 'add');
  const measured = plan(card('mask.neurons', { experts: [], data: { ratio: 0.5, criterion: 'activation', source: 'abc' } }));
  assert.deepEqual(toggleNeurons(measured, all, 0.5, 'activation'), { type: 'remove', version: 7, index: 0 }, 'whatever it was measured on');
});

test('a scope is said in words', () => {
  assert.equal(placeOf(all), 'in layer 3 for all tokens');
  assert.equal(placeOf(one), 'in layer 3 for token 2 alone');
});

test('a click acts on the marked box as a whole', () => {
  const box = { layer: 3, position: 2, scope: 'box', box: { layers: [2, 4], tokens: [1, 6] } };
  const added = toggle(plan(), 'reroute.ban', box, 5);
  assert.deepEqual(added.edit, { kind: 'reroute.ban', layers: [2, 3, 4], experts: [5], tokens: { start: 1, stop: 7 } });
  const now = plan(card('reroute.ban', { layers: [2, 3, 4], tokens: { start: 1, stop: 7 } }));
  assert.deepEqual(toggle(now, 'reroute.ban', box, 5), { type: 'remove', version: 7, index: 0 });
  assert.equal(toggle(now, 'reroute.ban', all, 5).type, 'add', 'another scope is another edit');
  assert.equal(wordsOf(box.box), 'layers 2 to 4, tokens 1 to 6');
});

test('weights are scaled beside each other, and by one not at all', () => {
  const now = plan(card('reroute.weights', { experts: [], data: { scale: { 5: 2, 6: 0.5 } } }));
  assert.deepEqual(scaleWeight(plan(), all, 5, 1.5).edit, { kind: 'reroute.weights', layers: [3], tokens: 'all', scale: { 5: 1.5 } });
  assert.deepEqual(scaleWeight(now, all, 5, 1).edit.scale, { 6: 0.5 });
  assert.deepEqual(scaleWeight(now, all, 7, 0).edit.scale, { 5: 2, 6: 0.5, 7: 0 });
  assert.equal(scaled(now, all, 6), 0.5);
  assert.equal(scaled(now, one, 6), 1);
  const last = plan(card('reroute.weights', { data: { scale: { 5: 2 } } }));
  assert.deepEqual(scaleWeight(last, all, 5, 1), { type: 'remove', version: 7, index: 0 });
  assert.equal(scaleWeight(plan(), all, 5, 1), null);
});

test('a head is masked and unmasked; a run keeps all its digits', () => {
  assert.deepEqual(toggleHead(plan(), 3, 1), { type: 'add', edit: { kind: 'mask.heads', layers: [3], heads: [1] } });
  assert.equal(toggleHead(plan(card('mask.heads', { data: { heads: [1] } })), 3, 1).type, 'remove');
  assert.equal(toggleHead(plan(card('mask.heads', { data: { heads: [1, 2] } })), 3, 1).type, 'add');
  assert.equal(replay(one, '250093398325974893').edit.run, '250093398325974893');
});

test('a replay is offered only where the plan does not re-route by itself', () => {
  for (const [edit, target, found] of [
    [card('reroute.ban'), all, true], [card('reroute.weights', { layers: null }), one, true],
    [card('reroute.ban', { tokens: [2] }), one, true], [card('reroute.ban', { tokens: { start: 0, stop: 2 } }), one, true],
    [card('reroute.ban', { tokens: [1] }), one, false], [card('reroute.ban', { layers: [2] }), all, false],
    [card('reroute.ban', { enabled: false }), all, false], [card('skip.block'), all, false]
  ]) {
    assert.equal(rerouting(plan(card('skip.mlp'), edit), target) === edit, found, JSON.stringify(edit));
  }
});
