import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { step } = await load('walk');

test('arrow keys go through the tokens and stop at the ends', () => {
  assert.deepEqual([step('ArrowRight', 3, 0, 9), step('ArrowLeft', 3, 0, 9), step('Home', 3, 0, 9), step('End', 3, 0, 9)], [4, 2, 0, 9]);
  assert.deepEqual([step('ArrowLeft', 4, 4, 9), step('ArrowRight', 9, 4, 9), step('ArrowLeft', 1, 4, 9)], [4, 9, 4]);
  assert.deepEqual([step('a', 3, 0, 9), step('End', 0, 0, -1)], [null, null]);
});
