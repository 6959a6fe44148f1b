import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { depthEvents, eventsInWords } = await load('depth');

test('depth events have signs and colours of their own', () => {
  const events = depthEvents();
  assert.equal(events.length, 6, 'the kernel knows numbers up to grids.SKIPPED');
  assert.equal(new Set(events.map(({ sign }) => sign)).size, 6);
  assert.equal(new Set(events.map(({ colour }) => String(colour))).size, 6);
  assert.equal(events[5].name, 'block skipped');
});

test('what happened in a cell is said in words', () => {
  assert.equal(eventsInWords(['attn skip']), 'attention skipped');
  assert.equal(eventsInWords(['attn skip', 'block repeat']), 'MLP repeated');
  assert.equal(eventsInWords(['block repeat', 'mlp skip']), 'attention repeated');
  assert.equal(eventsInWords(['attn skip', 'mlp skip']), 'attention skipped, MLP skipped');
  assert.equal(eventsInWords(['a new one']), 'a new one');
});
