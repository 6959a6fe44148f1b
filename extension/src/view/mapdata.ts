/** The routing map as typed arrays, and what its colours mean. No DOM. */
import type { RoutingMap } from './protocol';
import { type Rgb, category, quantity } from './scale';

export type Colour = 'expert' | 'weight' | 'margin' | 'entropy' | 'influence' | 'flip';

const READERS = { uint8: Uint8Array, int16: Int16Array, float32: Float32Array };

export class MapData {
  readonly run: string;
  readonly base: string;
  readonly edited: boolean;
  readonly texts: string[];
  readonly layers: number;
  readonly tokens: number;
  /** Experts per layer, and how many of them a token uses. */
  readonly experts: number;
  readonly choices: number;
  private readonly arrays = new Map<string, ArrayLike<number>>();
  private readonly ranges = new Map<string, [number, number]>();

  constructor(message: RoutingMap, buffers: DataView[]) {
    this.run = message.run;
    this.base = message.base;
    this.edited = message.edited;
    this.texts = message.texts;
    this.layers = message.layers.length;
    this.tokens = message.texts.length;
    this.experts = message.experts;
    this.choices = message.arrays.find(array => array.name === 'experts')?.shape[0] ?? 0;
    message.arrays.forEach((array, n) => {
      const view = buffers[n]!;
      // A slice copies to offset 0: a typed array needs an aligned offset, which the transport does not promise.
      const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
      this.arrays.set(array.name, new READERS[array.dtype](bytes as ArrayBuffer));
    });
  }

  /** The colours this run has values for. */
  get colours(): Colour[] {
    return this.choices > 0 ? ['expert', 'weight', 'margin', 'entropy', 'flip', 'influence'] : ['influence'];
  }

  private at(name: string, layer: number, token: number, choice = 0): number {
    return this.arrays.get(name)?.[(choice * this.layers + layer) * this.tokens + token] ?? NaN;
  }

  /** Chosen experts with their weights, heaviest first. */
  chosen(layer: number, token: number): { expert: number; weight: number }[] {
    const found = [];
    for (let choice = 0; choice < this.choices; choice++) {
      const expert = this.at('experts', layer, token, choice);
      if (expert >= 0) {
        found.push({ expert, weight: this.at('weights', layer, token, choice) });
      }
    }
    return found;
  }

  wasEdited(layer: number, token: number): boolean {
    return this.at('edited', layer, token) === 1;
  }

  flipped(layer: number, token: number): boolean {
    return this.at('flip', layer, token) === 1;
  }

  skipped(layer: number, token: number): boolean {
    return this.at('skipped', layer, token) === 1;
  }

  /** What `colour` shows in a cell: an expert's id, a quantity, or for flips 0 or 1; NaN where there is nothing. */
  value(colour: Colour, layer: number, token: number): number {
    if (this.skipped(layer, token)) {
      return NaN;
    }
    switch (colour) {
      case 'expert': {
        const expert = this.at('experts', layer, token);
        return expert < 0 ? NaN : expert;
      }
      case 'weight':
        return this.at('weights', layer, token);
      case 'flip':
        return this.at('experts', layer, token) < 0 ? NaN : this.at('flip', layer, token);
      default:
        return this.at(colour, layer, token);
    }
  }

  /** Least and greatest value of a quantity over the map. */
  range(colour: Colour): [number, number] {
    let range = this.ranges.get(colour);
    if (!range) {
      range = [Infinity, -Infinity];
      for (let layer = 0; layer < this.layers; layer++) {
        for (let token = 0; token < this.tokens; token++) {
          const value = this.value(colour, layer, token);
          if (Number.isFinite(value)) {
            range = [Math.min(range[0], value), Math.max(range[1], value)];
          }
        }
      }
      range = range[0] > range[1] ? [0, 1] : range;
      this.ranges.set(colour, range);
    }
    return range;
  }

  /** The fill of a cell, or null where there is nothing to show. */
  fill(colour: Colour, layer: number, token: number, agree: Rgb): Rgb | null {
    const value = this.value(colour, layer, token);
    if (!Number.isFinite(value)) {
      return null;
    }
    if (colour === 'expert') {
      return category(value);
    }
    if (colour === 'flip') {
      return value === 1 ? [213, 94, 0] : agree;
    }
    const [low, high] = this.range(colour);
    return quantity(high > low ? (value - low) / (high - low) : 0.5);
  }
}
