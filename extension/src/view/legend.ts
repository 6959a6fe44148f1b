/** What the colours and the marks of the map mean. */
import { Changed } from './changed';
import { depthEvents } from './depth';
import { h } from './dom';
import { type Colour, FLIP, type MapData } from './mapdata';
import { category, css, digits, ink, quantity } from './scale';
import { __ } from './words';

/** Beyond so many experts the swatches would say less than the numbers in the cells. */
const SWATCHES = 32;

export class MapLegend {
  readonly node = h('div', { class: 'wb-legend' });
  private readonly changed = new Changed();

  show(data: MapData | null, colour: Colour): void {
    if (!data) {
      this.node.replaceChildren();
      this.changed.by(null);
      return;
    }
    // What flips and quantities say depends on every cell; the rest on the kind of run alone.
    const counted = colour !== 'expert' && colour !== 'depth';
    if (!this.changed.by(colour, data.whole, data.experts, data.choices, data.edited) && !counted) {
      return;
    }
    const parts: Node[] = colour === 'expert' ? this.experts(data) : colour === 'flip' ? this.flips(data) : colour === 'depth' ? this.depths(data) : this.scale(data, colour);
    const marks: [string, string][] = [];
    if (data.edited) {
      if (data.choices > 0) {
        marks.push(['wb-mark-edited', __('re-routed by the plan')]);
      }
      if (data.choices > 0 && colour !== 'flip') {
        marks.push(['wb-mark-flip', __('flipped against base')]);
      }
      if (colour !== 'depth') {
        marks.push(['wb-mark-skip', __('skipped')]);
      }
    }
    parts.push(
      ...marks.map(([mark, text]) => h('span', { class: 'wb-key' }, h('span', { class: `wb-mark ${mark}` }), text))
    );
    this.node.replaceChildren(...parts);
  }

  private experts(data: MapData): Node[] {
    const count = Math.min(SWATCHES, data.experts);
    const keys: Node[] = [h('span', { class: 'wb-quiet', text: data.whole ? __('expert of the greatest weight') : __('most frequent expert; paler: of fewer tokens') })];
    for (let expert = 0; expert < count; expert++) {
      const swatch = h('span', { class: 'wb-swatch' });
      swatch.style.background = css(category(expert));
      keys.push(h('span', { class: 'wb-key' }, swatch, String(expert)));
    }
    if (data.experts > count) {
      keys.push(h('span', { class: 'wb-quiet', text: __('and so on to %1', data.experts - 1) }));
    }
    return keys;
  }

  private flips(data: MapData): Node[] {
    if (!data.edited) {
      return [h('span', { class: 'wb-quiet', text: __('No edited run yet: ban or force an expert to see which choices flip.') })];
    }
    const swatch = h('span', { class: 'wb-swatch' });
    swatch.style.background = css(FLIP);
    if (!data.whole) {
      return [h('span', { class: 'wb-key' }, swatch, __('choices that differ from the base run; paler: fewer of a column'))];
    }
    let flips = 0;
    let choices = 0;
    for (let layer = 0; layer < data.layers; layer++) {
      for (let token = 0; token < data.tokens; token++) {
        flips += data.flipped(layer, token) ? 1 : 0;
        choices += data.chosen(layer, token).length ? 1 : 0;
      }
    }
    return [h('span', { class: 'wb-key' }, swatch, __('%1 of %2 choices differ from the base run', flips, choices))];
  }

  private depths(data: MapData): Node[] {
    const keys = depthEvents().map(({ sign, name, colour }) => {
      const swatch = h('span', { class: 'wb-swatch wb-swatch-sign', text: sign, attrs: { 'aria-hidden': 'true' } });
      swatch.style.background = colour ? css(colour) : 'var(--wb-cell)';
      swatch.style.color = colour ? ink(colour) : '';
      return h('span', { class: 'wb-key' }, swatch, name);
    });
    return data.whole ? keys : [...keys, h('span', { class: 'wb-quiet', text: __('paler: fewer of a column') })];
  }

  private scale(data: MapData, colour: Colour): Node[] {
    const [low, high] = data.range(colour);
    const bar = h('span', { class: 'wb-gradient' });
    bar.style.background = `linear-gradient(to right, ${[0, 0.2, 0.4, 0.6, 0.8, 1].map(share => css(quantity(share))).join(', ')})`;
    const meaning: Record<string, string> = {
      weight: __('combine weight of the first expert'),
      margin: __('k-th best score minus the next; low: nearly went elsewhere'),
      entropy: __('entropy of the routing distribution in nats'),
      influence: __('1 − cosine of what enters and leaves the block'),
      contribution: __('norm of what the block adds, relative to the stream'),
      sparsity: __('share of activations that are exactly zero')
    };
    return [
      h('span', { class: 'wb-number', text: digits(low, 3) }),
      bar,
      h('span', { class: 'wb-number', text: digits(high, 3) }),
      h('span', { class: 'wb-quiet', text: (meaning[colour] ?? '') + (data.whole ? '' : ` · ${__('1st to 99th percentile')}`) })
    ];
  }
}

/** What a map can be coloured by, in words. */
export function nameOf(colour: Colour): string {
  const names: Record<Colour, string> = {
    expert: __('chosen expert'),
    weight: __('weight of the first expert'),
    margin: __('margin'),
    entropy: __('entropy'),
    flip: __('flip against base'),
    influence: __('block influence'),
    contribution: __('contribution of the block'),
    sparsity: __('zero activations'),
    depth: __('depth events')
  };
  return names[colour];
}
