import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { choices, hint, isBoolean, isChoice, read, words, write } = await load('fields');

// As pydantic describes them.
const definitions = { Span: { type: 'object', properties: { start: { type: 'integer' }, stop: {} } } };
const layers = { anyOf: [{ const: 'all', type: 'string' }, { type: 'array', items: { type: 'integer' } }], default: 'all' };
const tokens = { anyOf: [{ enum: ['all', 'prompt'], type: 'string' }, { $ref: '#/$defs/Span' }, { type: 'array', items: { type: 'integer' } }] };
const delta = { anyOf: [{ type: 'object', additionalProperties: { type: 'number' } }, { type: 'array', items: { type: 'number' } }] };
const weight = { anyOf: [{ type: 'number' }, { type: 'null' }] };

test('what is typed becomes what the schema wants', () => {
  const cases = [
    ['all', layers, 'all'], ['0, 3, 5-8', layers, [0, 3, 5, 6, 7, 8]], ['4', layers, [4]], ['prompt', tokens, 'prompt'],
    ['4:9', tokens, { start: 4, stop: 9 }], ['4:', tokens, { start: 4, stop: null }], ['2 7', tokens, [2, 7]],
    ['5: 1.5, 7: -1', delta, { 5: 1.5, 7: -1 }], ['0.5, -1e-3', delta, [0.5, -0.001]], ['0.25', weight, 0.25],
    ['250093398325974893', { type: 'integer' }, '250093398325974893'], ['12', { type: 'integer' }, 12],
    ['[[1, 2], [3, 4]]', { type: 'array', items: { type: 'array' } }, [[1, 2], [3, 4]]], ['free text', { type: 'string' }, 'free text'],
    ['{"a": [1]}', { type: 'object' }, { a: [1] }]
  ];
  for (const [text, schema, value] of cases) {
    assert.deepEqual(read(text, schema, definitions), value, text);
  }
  assert.equal(read('  ', layers, definitions), undefined, 'the default of the field');
});

test('what cannot be read is answered by an example', () => {
  for (const [text, schema, example] of [['1,x', layers, '0, 3, 5-8'], ['a:b', tokens, '4:9'], ['one', { type: 'integer' }, '1']]) {
    assert.throws(() => read(text, schema, definitions), error => error.message.includes(example));
  }
});

test('a value is written as it is read', () => {
  for (const [value, schema] of [
    ['all', layers], [[0, 3], layers], [{ start: 4, stop: 9 }, tokens], [{ start: 4, stop: null }, tokens], [{ 5: 1.5 }, delta], [0.5, weight]
  ]) {
    assert.deepEqual(read(write(value), schema, definitions), value);
  }
  assert.equal(write(null), '');
});

test('words and switches are told apart', () => {
  assert.deepEqual(words(tokens, definitions), ['all', 'prompt']);
  assert.ok(isChoice({ enum: ['scores', 'logits'] }, {}) && !isChoice(tokens, definitions));
  assert.ok(isBoolean({ type: 'boolean' }, {}) && !isBoolean(weight, {}));
  assert.equal(hint(layers, definitions), 'all / 0, 3, 5-8');
});

test('a choice of numbers is offered and read as numbers', () => {
  const block = { enum: [16, 32, 64], type: 'integer', default: 64 };
  assert.ok(isChoice(block, definitions));
  assert.deepEqual(choices(block, definitions), ['16', '32', '64']);
  assert.equal(read('32', block, definitions), 32);
  assert.ok(choices(block, definitions).includes(write(block.default)), 'the default is among them');
});
