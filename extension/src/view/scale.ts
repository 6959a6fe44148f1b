/** Colours: categories that stay apart for colour-blind readers, and a perceptually even scale for quantities. */

export type Rgb = [number, number, number];

/** Okabe and Ito's eight without black, then darker and lighter steps of the same hues; ids are also printed in cells. */
const HUES: Rgb[] = [
  [0, 114, 178],
  [230, 159, 0],
  [0, 158, 115],
  [204, 121, 167],
  [86, 180, 233],
  [213, 94, 0],
  [240, 228, 66]
];
const STEPS = [0, -0.42, 0.5, -0.65, 0.72];

export function category(index: number): Rgb {
  const hue = HUES[index % HUES.length]!;
  const step = STEPS[Math.floor(index / HUES.length) % STEPS.length]!;
  const target = step < 0 ? 0 : 255;
  return hue.map(value => Math.round(value + (target - value) * Math.abs(step))) as Rgb;
}

/** Viridis at eleven stops. */
const VIRIDIS: Rgb[] = [
  [68, 1, 84],
  [72, 36, 117],
  [65, 68, 135],
  [53, 95, 141],
  [42, 120, 142],
  [33, 145, 140],
  [34, 168, 132],
  [68, 191, 112],
  [122, 209, 81],
  [189, 223, 38],
  [253, 231, 37]
];

/** `share` from 0 to 1. */
export function quantity(share: number): Rgb {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const left = Math.min(VIRIDIS.length - 2, Math.floor(place));
  const low = VIRIDIS[left]!;
  const high = VIRIDIS[left + 1]!;
  return low.map((value, n) => Math.round(value + (high[n]! - value) * (place - left))) as Rgb;
}

/** `share` of `over` laid on `under`. */
export function mix(under: Rgb, over: Rgb, share: number): Rgb {
  return under.map((value, n) => Math.round(value + (over[n]! - value) * share)) as Rgb;
}

export function css([red, green, blue]: Rgb): string {
  return `rgb(${red}, ${green}, ${blue})`;
}

/** Black or white, whichever is easier to read on `colour` (WCAG's relative luminance). */
export function ink(colour: Rgb): string {
  const [r, g, b] = colour.map(value => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as Rgb;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? '#000' : '#fff';
}

/** Four significant digits, never in a form wider than needed. */
export function digits(value: number, count = 4): string {
  if (!Number.isFinite(value)) {
    return '–';
  }
  return value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6)
    ? value.toExponential(count - 1)
    : value.toPrecision(count);
}

export function signed(value: number, count = 4): string {
  return (value > 0 ? '+' : value < 0 ? '−' : '') + digits(Math.abs(value), count);
}
