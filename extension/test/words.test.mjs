import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { told, useTranslator } = await load('words');

test('what the kernel says is put together here, and found in a catalogue by its English', () => {
  const layer = { text: 'There is no layer %1 of %2.', values: [7, '%1'] };
  assert.equal(told(layer), 'There is no layer 7 of %1.');
  const catalogue = { 'There is no layer %1 of %2.': 'Schicht %1 von %2 fehlt.' };
  useTranslator((text, ...values) => (catalogue[text] ?? text).replace(/%(\d)/g, (_, n) => String(values[n - 1])));
  assert.equal(told(layer), 'Schicht 7 von %1 fehlt.');
  assert.equal(told({ text: 'There is no layer %1 of %2.', values: null }), 'There is no layer %1 of %2.', 'words of a library stay as they are');
});
