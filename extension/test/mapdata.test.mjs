import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { COARSE, FINE, MapData } = await load('mapdata');

const KINDS = { int16: Int16Array, float32: Float32Array };

/** Arrays as the kernel sends them: described, and as buffers that start at an odd byte. */
function packed(arrays) {
  const buffers = arrays.map(([, dtype, , values]) => {
    const bytes = new Uint8Array(KINDS[dtype].from(values).buffer);
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    return new DataView(shifted.buffer, 1, bytes.length);
  });
  return [arrays.map(([name, dtype, shape]) => ({ name, dtype, shape })), buffers];
}

const HEAD = { type: 'map', run: '9007199254740993', base: '1', edited: true, experts: 6 };

/** A map of 2 layers and 3 tokens; layer 0 is dense, token 2 of layer 1 is skipped. */
function example(choices = 2) {
  const [arrays, buffers] = packed([
    ['experts', 'int16', [choices, 2, 3], [-1, -1, -1, 4, 0, 5, -1, -1, -1, 1, 2, 3].slice(0, choices * 6)],
    ['weights', 'float32', [choices, 2, 3], [NaN, NaN, NaN, 0.5, 0.75, 1, NaN, NaN, NaN, 0.25, 0.125, 0].slice(0, choices * 6)],
    ['margin', 'float32', [2, 3], [NaN, NaN, NaN, 1, 2, 3]],
    ['influence', 'float32', [2, 3], [0, 0.5, 1, 0.25, 0.25, NaN]],
    ['flip', 'float32', [2, 3], [0, 0, 0, 1, 0, 0]],
    ['edited', 'float32', [2, 3], [0, 0, 0, 1, 1, 0]],
    ['skipped', 'float32', [2, 3], [0, 0, 0, 0, 0, 1]],
    ['depth', 'float32', [2, 3], [0, 3, 0, 0, 0, 5]]
  ]);
  const tile = { first: 0, bucket: 1, columns: 3, colour: '', layer: null, texts: ['a', 'b', 'c'], range: null, arrays };
  const colours = choices ? ['expert', 'weight', 'margin', 'flip', 'influence'] : ['influence'];
  return new MapData({ ...HEAD, tokens: 3, layers: [0, 1], choices, colours, tile }, buffers);
}

/** A map of 2 layers and 4,000 tokens, none of which has been sent. */
const large = () => new MapData({ ...HEAD, tokens: 4000, layers: [0, 1], choices: 2, colours: ['expert', 'margin'], tile: null }, []);

test('choices come heaviest first, and only those that exist', () => {
  const data = example();
  assert.deepEqual(data.chosen(1, 0), [{ expert: 4, weight: 0.5 }, { expert: 1, weight: 0.25 }]);
  assert.deepEqual(data.chosen(0, 0), []);
  assert.equal(data.run, '9007199254740993');
  assert.equal(data.text(1), 'b');
});

test('a cell has the value of its colour, or none', () => {
  const data = example();
  const tile = data.tile('expert', 1, 0);
  assert.equal(data.value('expert', 1, 1), 0);
  assert.ok(Number.isNaN(data.value('expert', 0, 1)));
  assert.equal(data.value('margin', 1, 1), 2);
  assert.ok(Number.isNaN(data.value('margin', 1, 2)), 'nothing of a skipped block is shown');
  assert.equal(data.value('flip', 1, 0), 1);
  assert.deepEqual(data.range('margin'), [1, 2]);
  assert.deepEqual(data.range('influence'), [0, 1]);
  assert.equal(data.fill(tile, 'expert', 0, 0, [0, 0, 0]), null);
  assert.deepEqual(data.fill(tile, 'flip', 1, 1, [9, 9, 9]), [9, 9, 9]);
  assert.deepEqual(data.fill(tile, 'flip', 1, 0, [9, 9, 9]), [213, 94, 0]);
  assert.ok(data.wasEdited(1, 0) && data.flipped(1, 0) && data.skipped(1, 2) && !data.skipped(1, 1));
});

test('a dense model is shown by what its blocks do', () => {
  const dense = example(0);
  assert.deepEqual(dense.colours, ['influence']);
  assert.deepEqual(dense.chosen(1, 0), []);
  assert.deepEqual(dense.missing('influence', 1, 0, 2, null), [], 'a small map is whole');
});

test('the level of detail is the coarsest that still fills a pixel and a half', () => {
  const data = large();
  for (const [width, bucket] of [[20, 1], [1.5, 1], [1.4, 2], [0.5, 4], [0.25, 8], [0.03, 64]]) {
    assert.equal(data.bucket(width), bucket, `${width}`);
    assert.ok(data.bucket(width) * width >= 1.5);
  }
  assert.equal(example().bucket(0.1), 1, 'a small map has every token');
});

test('a large map asks for the tiles in sight, and no more', () => {
  const data = large();
  assert.deepEqual(
    data.missing('margin', 4, 2000, 2100, null),
    [{ key: 'margin:4:1024:', colour: 'margin', first: 1024, bucket: 4, layer: null }, { key: 'margin:4:2048:', colour: 'margin', first: 2048, bucket: 4, layer: null }]
  );
  assert.deepEqual(data.missing('margin', 1, 0, 2 * FINE - 1, null).map(want => want.first), [0, FINE]);
  assert.deepEqual(data.missing('margin', 16, -50, 9999, 1).map(want => [want.colour, want.layer]), [['margin', null], ['lanes', 1]]);
  const [arrays, buffers] = packed([['margin', 'float32', [2, COARSE], Array.from({ length: 2 * COARSE }, (_, n) => n)]]);
  data.take({ first: 0, bucket: 4, columns: COARSE, colour: 'margin', layer: null, texts: [], range: [10, 20], arrays }, buffers);
  assert.deepEqual(data.missing('margin', 4, 0, 100, null), []);
  assert.equal(data.tile('margin', 4, 4 * COARSE - 1).at('margin', 1, COARSE - 1), 2 * COARSE - 1);
  assert.deepEqual(data.range('margin'), [10, 20]);
  assert.ok(!data.knows(5) && data.text(5) === null, 'an aggregate knows no single token');
  assert.ok(data.missing('expert', 4, 0, 100, null).length, 'another colour is another tile');
});

test('a column of many tokens is the paler, the fewer of them chose its expert', () => {
  const data = large();
  const [arrays, buffers] = packed([['experts', 'int16', [1, 2, 2], [0, 0, -1, 0]], ['share', 'float32', [2, 2], [1, 0.1, NaN, 0.5]], ['skipped', 'float32', [2, 2], [0, 0, 0, 1]]]);
  data.take({ first: 0, bucket: 8, columns: 2, colour: 'expert', layer: null, texts: [], range: null, arrays }, buffers);
  const tile = data.tile('expert', 8, 0);
  const white = [255, 255, 255];
  assert.deepEqual(data.fill(tile, 'expert', 0, 0, white), [0, 114, 178]);
  assert.ok(data.fill(tile, 'expert', 0, 1, white)[0] > 150);
  assert.equal(data.fill(tile, 'expert', 1, 0, white), null);
  assert.equal(data.fill(tile, 'expert', 1, 1, white), null, 'every token of the column is skipped');
});

test('tiles that have not been looked at for long are forgotten', () => {
  const data = new MapData({ ...HEAD, tokens: 100 * FINE, layers: [0], choices: 0, colours: [], tile: null }, []);
  for (let n = 0; n < 100; n++) {
    data.take({ first: n * FINE, bucket: 1, columns: FINE, colour: 'expert', layer: null, texts: Array(FINE).fill('x'), range: null, arrays: [] }, []);
    data.text(0);
  }
  assert.equal(data.text(0), 'x', 'it was looked at all the time');
  assert.equal(data.text(FINE), null);
  assert.equal(data.text(99 * FINE), 'x');
});

test('depth events have a colour where a block did not simply run once', () => {
  const data = example();
  const tile = data.tile('depth', 1, 0);
  assert.deepEqual([data.depth(0, 1), data.depth(1, 2), data.depth(0, 0)], [3, 5, 0]);
  assert.equal(data.value('depth', 1, 2), 5, 'a skipped block is what this colour is about');
  assert.equal(data.fill(tile, 'depth', 0, 0, [9, 9, 9]), null);
  assert.notDeepEqual(data.fill(tile, 'depth', 0, 1, [9, 9, 9]), data.fill(tile, 'depth', 1, 2, [9, 9, 9]));
});
