import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { lines, told, toldIn, useTranslator } = await load('words');

test('what the kernel says is put together here, and found in a catalogue by its English', () => {
  const layer = { text: 'There is no layer %1 of %2.', values: [7, '%1'] };
  assert.equal(told(layer), 'There is no layer 7 of %1.');
  const catalogue = { 'There is no layer %1 of %2.': 'Schicht %1 von %2 fehlt.' };
  useTranslator((text, ...values) => (catalogue[text] ?? text).replace(/%(\d)/g, (_, n) => String(values[n - 1])));
  assert.equal(told(layer), 'Schicht 7 von %1 fehlt.');
  assert.equal(told({ text: 'There is no layer %1 of %2.', values: null }), 'There is no layer %1 of %2.', 'words of a library stay as they are');
});

test('a sentence in a sentence is translated too, and so is all that a chart says', () => {
  const catalogue = { '%1 in layer %2': 'in Schicht %2: %1', 'ban %1': '%1 sperren', 'expert %1': 'Experte %1', load: 'Last' };
  useTranslator((text, ...values) => (catalogue[text] ?? text).replace(/%(\d)/g, (_, n) => String(values[n - 1])));
  const edit = { text: '%1 in layer %2', values: [{ text: 'ban %1', values: [{ text: 'expert %1', values: ['5'] }] }, '3'] };
  assert.equal(told(edit), 'in Schicht 3: Experte 5 sperren');
  const load = { $said: { text: 'load', values: [] } };
  const spec = { title: load, encoding: { y: { field: 'load', title: null } }, datasets: { d: [{ measure: load, load: 0.5 }] } };
  assert.deepEqual(toldIn(spec), {
    title: 'Last', encoding: { y: { field: 'load', title: null } }, datasets: { d: [{ measure: 'Last', load: 0.5 }] }
  });
});

test('a long title goes over several lines, broken between words', () => {
  assert.deepEqual(lines('What each part adds, by layer', 12), ['What each', 'part adds,', 'by layer']);
  assert.deepEqual(lines('incomprehensibilities of it', 5), ['incomprehensibilities', 'of it'], 'a word stays whole');
  assert.deepEqual(lines('short', 80), ['short']);
});
