import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { MapData } = await load('mapdata');

/** A map of 2 layers and 3 tokens; layer 0 is dense, token 2 of layer 1 is skipped. */
function example(choices = 2) {
  const arrays = [
    ['experts', 'int16', [choices, 2, 3], Int16Array, [-1, -1, -1, 4, 0, 5, -1, -1, -1, 1, 2, 3].slice(0, choices * 6)],
    ['weights', 'float32', [choices, 2, 3], Float32Array, [NaN, NaN, NaN, 0.5, 0.75, 1, NaN, NaN, NaN, 0.25, 0.125, 0].slice(0, choices * 6)],
    ['margin', 'float32', [2, 3], Float32Array, [NaN, NaN, NaN, 1, 2, 3]],
    ['influence', 'float32', [2, 3], Float32Array, [0, 0.5, 1, 0.25, 0.25, NaN]],
    ['flip', 'uint8', [2, 3], Uint8Array, [0, 0, 0, 1, 0, 0]],
    ['edited', 'uint8', [2, 3], Uint8Array, [0, 0, 0, 1, 1, 0]],
    ['skipped', 'uint8', [2, 3], Uint8Array, [0, 0, 0, 0, 0, 1]]
  ];
  const buffers = arrays.map(([, , , kind, values]) => {
    // One byte of something else in front: the transport does not promise aligned buffers.
    const bytes = new Uint8Array(kind.from(values).buffer);
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    return new DataView(shifted.buffer, 1, bytes.length);
  });
  return new MapData(
    {
      type: 'map', run: '9007199254740993', base: '1', edited: true, texts: ['a', 'b', 'c'], layers: [0, 1], experts: 6,
      arrays: arrays.map(([name, dtype, shape]) => ({ name, dtype, shape }))
    },
    buffers
  );
}

test('choices come heaviest first, and only those that exist', () => {
  const data = example();
  assert.deepEqual(data.chosen(1, 0), [{ expert: 4, weight: 0.5 }, { expert: 1, weight: 0.25 }]);
  assert.deepEqual(data.chosen(0, 0), []);
  assert.equal(data.run, '9007199254740993');
});

test('a cell has the value of its colour, or none', () => {
  const data = example();
  assert.equal(data.value('expert', 1, 1), 0);
  assert.ok(Number.isNaN(data.value('expert', 0, 1)));
  assert.equal(data.value('margin', 1, 1), 2);
  assert.ok(Number.isNaN(data.value('margin', 1, 2)), 'nothing of a skipped block is shown');
  assert.equal(data.value('flip', 1, 0), 1);
  assert.deepEqual(data.range('margin'), [1, 2]);
  assert.deepEqual(data.range('influence'), [0, 1]);
  assert.equal(data.fill('expert', 0, 0, [0, 0, 0]), null);
  assert.deepEqual(data.fill('flip', 1, 1, [9, 9, 9]), [9, 9, 9]);
  assert.ok(data.wasEdited(1, 0) && data.flipped(1, 0) && data.skipped(1, 2) && !data.skipped(1, 1));
});

test('a dense model is shown by block influence alone', () => {
  const dense = example(0);
  assert.deepEqual(dense.colours, ['influence']);
  assert.deepEqual(dense.chosen(1, 0), []);
  assert.ok(example().colours.includes('expert'));
});
