/** The routing map as typed arrays, whole or in tiles, and what its colours mean. No DOM. */
import type { MapArray, RoutingMap, Tile } from './protocol';
import { depthEvents } from './depth';
import { type Rgb, category, mix, quantity } from './scale';

export type Colour = 'expert' | 'weight' | 'margin' | 'entropy' | 'flip' | 'influence' | 'contribution' | 'sparsity' | 'depth';

/** Columns of a tile of single tokens and of one of aggregated tokens; the kernel's `tiles.FINE` and `tiles.COARSE`. */
export const FINE = 256;
export const COARSE = 256;
/** Tiles kept; the rest can be asked for again. */
const KEPT = 80;
/** A column of the map is never thinner than this, in pixels. */
const THINNEST = 1.5;

export const FLIP: Rgb = [213, 94, 0];
const DEPTHS = depthEvents().map(({ colour }) => colour);

const READERS = { uint8: Uint8Array, int16: Int16Array, float32: Float32Array };

export function readArray(array: MapArray, buffer: DataView): ArrayLike<number> {
  // A slice copies to offset 0: a typed array needs an aligned offset, which the transport does not promise.
  const bytes = buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength);
  return new READERS[array.dtype](bytes as ArrayBuffer);
}

/** A piece of the map: `columns` columns of `bucket` tokens each. */
export class TileData {
  readonly first: number;
  readonly bucket: number;
  readonly columns: number;
  readonly colour: string;
  readonly layer: number | null;
  readonly texts: string[];
  readonly range: [number, number] | null;
  /** A canvas with one pixel a cell, kept by whoever draws it. */
  picture: unknown = null;
  private readonly arrays = new Map<string, ArrayLike<number>>();

  constructor(
    tile: Tile,
    buffers: DataView[],
    private readonly layers: number
  ) {
    this.first = tile.first;
    this.bucket = tile.bucket;
    this.columns = tile.columns;
    this.colour = tile.colour;
    this.layer = tile.layer;
    this.texts = tile.texts;
    this.range = tile.range as [number, number] | null;
    tile.arrays.forEach((array, n) => this.arrays.set(array.name, readArray(array, buffers[n]!)));
  }

  at(name: string, layer: number, column: number, choice = 0): number {
    return this.arrays.get(name)?.[(choice * this.layers + layer) * this.columns + column] ?? NaN;
  }

  /** Share of the tokens of a column that chose an expert, in a tile of lanes. */
  lane(expert: number, column: number): number {
    return this.arrays.get('lanes')?.[expert * this.columns + column] ?? NaN;
  }
}

/** What is still to be asked for. */
export interface Want {
  key: string;
  colour: string;
  first: number;
  bucket: number;
  layer: number | null;
}

export class MapData {
  readonly run: string;
  readonly base: string;
  readonly edited: boolean;
  readonly layers: number;
  readonly tokens: number;
  /** Experts per layer, and how many of them a token uses. */
  readonly experts: number;
  readonly choices: number;
  /** The colours this run has values for. */
  readonly colours: Colour[];
  /** Whether everything is here. */
  readonly whole: boolean;
  private readonly tiles = new Map<string, TileData>();
  private readonly ranges = new Map<string, [number, number]>();

  constructor(message: RoutingMap, buffers: DataView[]) {
    this.run = message.run;
    this.base = message.base;
    this.edited = message.edited;
    this.layers = message.layers.length;
    this.tokens = message.tokens;
    this.experts = message.experts;
    this.choices = message.choices;
    this.colours = message.colours as Colour[];
    this.whole = message.tile !== null;
    if (message.tile) {
      this.tiles.set('whole', new TileData(message.tile, buffers, this.layers));
    }
  }

  /** A tile that was asked for has come. */
  take(tile: Tile, buffers: DataView[]): void {
    const data = new TileData(tile, buffers, this.layers);
    if (data.range) {
      this.ranges.set(data.colour, data.range);
    }
    this.tiles.set(keyOf(data.colour, data.bucket, data.first, data.layer), data);
    if (this.tiles.size > KEPT) {
      this.tiles.delete(this.tiles.keys().next().value!);
    }
  }

  /** Tokens of one column where a token is `width` pixels wide: a power of two. */
  bucket(width: number): number {
    return this.whole ? 1 : 2 ** Math.max(0, Math.ceil(Math.log2(THINNEST / width)));
  }

  /** The tile of a token at a level of detail, if it is here. */
  tile(colour: string, bucket: number, token: number, layer: number | null = null): TileData | null {
    if (this.whole) {
      return this.tiles.get('whole')!;
    }
    const key = keyOf(colour, bucket, this.start(bucket, token), layer);
    const found = this.tiles.get(key);
    if (found) {
      // The one used last is the last to go.
      this.tiles.delete(key);
      this.tiles.set(key, found);
    }
    return found ?? null;
  }

  /** What a view of these tokens needs and has not got; the middle first. */
  missing(colour: string, bucket: number, first: number, last: number, lanes: number | null): Want[] {
    if (this.whole) {
      return [];
    }
    const wants: Want[] = [];
    const span = bucket * (bucket === 1 ? FINE : COARSE);
    for (let start = this.start(bucket, Math.max(0, first)); start <= Math.min(last, this.tokens - 1); start += span) {
      const kinds: [string, number | null][] = [[bucket === 1 ? '' : colour, null]];
      if (lanes !== null && bucket > 1) {
        kinds.push(['lanes', lanes]);
      }
      for (const [kind, layer] of kinds) {
        const key = keyOf(kind, bucket, start, layer);
        if (!this.tiles.has(key)) {
          wants.push({ key, colour: kind || 'expert', first: start, bucket, layer });
        }
      }
    }
    return wants;
  }

  private start(bucket: number, token: number): number {
    const span = bucket * (bucket === 1 ? FINE : COARSE);
    return Math.floor(token / span) * span;
  }

  private fine(token: number): TileData | null {
    return this.tile('', 1, token);
  }

  /** Whether single tokens are known here. */
  knows(token: number): boolean {
    return this.fine(token) !== null;
  }

  text(token: number): string | null {
    const tile = this.fine(token);
    return tile?.texts[token - tile.first] ?? null;
  }

  private read(name: string, layer: number, token: number, choice = 0): number {
    const tile = this.fine(token);
    return tile ? tile.at(name, layer, token - tile.first, choice) : NaN;
  }

  /** Chosen experts with their weights, heaviest first. */
  chosen(layer: number, token: number): { expert: number; weight: number }[] {
    const found = [];
    for (let choice = 0; choice < this.choices; choice++) {
      const expert = this.read('experts', layer, token, choice);
      if (expert >= 0) {
        found.push({ expert, weight: this.read('weights', layer, token, choice) });
      }
    }
    return found;
  }

  wasEdited(layer: number, token: number): boolean {
    return this.read('edited', layer, token) > 0;
  }

  flipped(layer: number, token: number): boolean {
    return this.read('flip', layer, token) > 0;
  }

  skipped(layer: number, token: number): boolean {
    return this.read('skipped', layer, token) > 0;
  }

  /** What became of a block: the number of a depth event, 0 where it ran once. */
  depth(layer: number, token: number): number {
    return this.read('depth', layer, token) || 0;
  }

  /** What `colour` shows in a cell: an expert's id, a quantity, or for flips 0 or 1; NaN where there is nothing. */
  value(colour: Colour, layer: number, token: number): number {
    const tile = this.fine(token);
    return tile ? valueIn(tile, colour, layer, token - tile.first) : NaN;
  }

  /** Least and greatest value of a quantity over the map; of a large one its 1st and 99th percentile. */
  range(colour: Colour): [number, number] {
    let range = this.ranges.get(colour);
    if (!range) {
      range = [Infinity, -Infinity];
      for (let layer = 0; this.whole && layer < this.layers; layer++) {
        for (let token = 0; token < this.tokens; token++) {
          const value = this.value(colour, layer, token);
          if (Number.isFinite(value)) {
            range = [Math.min(range[0], value), Math.max(range[1], value)];
          }
        }
      }
      range = range[0] > range[1] ? [0, 1] : range;
      if (this.whole) {
        this.ranges.set(colour, range);
      }
    }
    return range;
  }

  /** The fill of a cell of a tile, or null where there is nothing to show; `empty` is the colour of nothing. */
  fill(tile: TileData, colour: Colour, layer: number, column: number, empty: Rgb): Rgb | null {
    const value = valueIn(tile, colour, layer, column);
    if (!Number.isFinite(value)) {
      return null;
    }
    if (colour === 'expert') {
      // A column of many tokens is the paler, the fewer of them chose what it shows.
      const share = tile.bucket === 1 ? 1 : tile.at('share', layer, column);
      return mix(empty, category(value), 0.25 + 0.75 * share);
    }
    if (colour === 'flip') {
      return mix(empty, FLIP, Math.sqrt(value));
    }
    if (colour === 'depth') {
      const shown = DEPTHS[value] ?? null;
      return shown && mix(empty, shown, tile.bucket === 1 ? 1 : 0.25 + 0.75 * tile.at('share', layer, column));
    }
    const [low, high] = this.range(colour);
    return quantity(high > low ? (value - low) / (high - low) : 0.5);
  }
}

function valueIn(tile: TileData, colour: Colour, layer: number, column: number): number {
  if (colour !== 'depth' && tile.at('skipped', layer, column) >= 1) {
    return NaN;
  }
  const single = tile.bucket === 1;
  if (colour === 'expert' || (single && colour === 'flip')) {
    const expert = tile.at('experts', layer, column);
    return expert < 0 ? NaN : colour === 'expert' ? expert : tile.at('flip', layer, column);
  }
  return tile.at(colour === 'weight' ? 'weights' : colour, layer, column);
}

function keyOf(colour: string, bucket: number, first: number, layer: number | null): string {
  return `${bucket === 1 && colour !== 'lanes' ? '' : colour}:${bucket}:${first}:${layer ?? ''}`;
}
