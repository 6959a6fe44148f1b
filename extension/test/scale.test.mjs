import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { category, digits, ink, quantity, signed } = await load('scale');

test('four significant digits, whatever the size', () => {
  assert.equal(digits(0.123456), '0.1235');
  assert.equal(digits(0.000123456), '0.0001235');
  assert.equal(digits(0.0000123456), '1.235e-5');
  assert.equal(digits(1), '1.000');
  assert.equal(digits(0), '0.000');
  assert.equal(digits(NaN), '–');
  assert.equal(digits(0.5, 2), '0.50');
  assert.equal(signed(0.00042), '+0.0004200');
  assert.equal(signed(-0.5), '−0.5000');
  assert.equal(signed(0), '0.000');
});

test('thirty-two experts have thirty-two colours, each with ink that can be read (WCAG 4.5)', () => {
  const seen = new Set();
  const luminance = colour => {
    const [r, g, b] = colour.map(v => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (let expert = 0; expert < 32; expert++) {
    const colour = category(expert);
    seen.add(colour.join());
    const light = luminance(colour);
    const contrast = ink(colour) === '#000' ? (light + 0.05) / 0.05 : 1.05 / (light + 0.05);
    assert.ok(contrast >= 4.5, `expert ${expert}: ${contrast}`);
  }
  assert.equal(seen.size, 32);
  assert.equal(category(1000).length, 3);
});

test('the scale of quantities grows in lightness from end to end and keeps to its ends', () => {
  let last = -1;
  for (let share = 0; share <= 1; share += 0.05) {
    const [r, g, b] = quantity(share);
    const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    assert.ok(light > last);
    last = light;
  }
  assert.deepEqual(quantity(-1), quantity(0));
  assert.deepEqual(quantity(2), quantity(1));
});
