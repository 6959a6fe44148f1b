/** Painting the routing map: cells, lanes, labels, frames and marks on a canvas. Knows no events. */
import { depthEvents } from './depth';
import { shown } from './dom';
import { COARSE, type Colour, type MapData, type TileData } from './mapdata';
import { type Rgb, category, css, digits, ink, mix, quantity } from './scale';
import { __ } from './words';

export const GUTTER = 34;
/** Slope of the labels, and the longest label in characters. */
export const SLANT = Math.PI / 3.4;
const LABEL = 9;
/** Room between the layers and the lanes below them. */
const LANE_GAP = 20;

export interface Place {
  layer: number;
  position: number;
}

/** Layers and tokens, first and last, both included. */
export interface Box {
  layers: [number, number];
  tokens: [number, number];
}

export type Rows = 'layers' | 'slots' | 'lanes';

/** Where things are: `width` of a token and `height` of a layer in pixels, `head` above the layers. */
export interface Geometry {
  width: number;
  height: number;
  head: number;
  scroll: number;
  lane: number;
}

export interface Scene extends Geometry {
  data: MapData;
  colour: Colour;
  rows: Rows;
  cursor: Place;
  selected: Place | null;
  hovered: Place | null;
  box: Box | null;
  focused: boolean;
}

interface Ink {
  paper: string;
  text: string;
  faint: string;
  accent: string;
  empty: string;
  none: Rgb;
  family: string;
}

export function lanesTop(scene: Geometry, data: MapData): number {
  return scene.head + data.layers * scene.height + LANE_GAP;
}

export function paint(canvas: HTMLCanvasElement, context: CanvasRenderingContext2D, node: HTMLElement, scene: Scene | null): void {
  const ratio = window.devicePixelRatio || 1;
  const wide = canvas.clientWidth;
  const high = canvas.clientHeight;
  canvas.width = Math.round(wide * ratio);
  canvas.height = Math.round(high * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, wide, high);
  if (!scene) {
    return;
  }
  const style = getComputedStyle(node);
  const colour = (name: string, other: string): string => style.getPropertyValue(name).trim() || other;
  const empty = colour('--wb-cell', '#eee');
  const inks: Ink = {
    paper: colour('--wb-paper', '#fff'),
    text: colour('--wb-ink', '#000'),
    faint: colour('--wb-ink-2', '#666'),
    accent: colour('--wb-accent', '#1976d2'),
    empty,
    none: readColour(empty),
    family: style.fontFamily
  };
  const first = Math.max(0, Math.floor((scene.scroll - GUTTER) / scene.width));
  const last = Math.min(scene.data.tokens - 1, Math.ceil((scene.scroll + wide - GUTTER) / scene.width));
  context.save();
  context.beginPath();
  context.rect(GUTTER, 0, wide - GUTTER, high);
  context.clip();
  const bucket = scene.data.bucket(scene.width);
  if (bucket === 1) {
    paintCells(context, scene, inks, first, last);
  } else {
    paintTiles(context, scene, inks, first, last, bucket);
  }
  if (scene.rows === 'lanes') {
    paintLanes(context, scene, inks, first, last, bucket);
  }
  paintFrames(context, scene, inks);
  context.restore();
  context.save();
  context.beginPath();
  context.rect(GUTTER - 8, 0, wide, high);
  context.clip();
  paintHead(context, scene, inks, first, last);
  context.restore();
  paintGutter(context, scene, inks);
}

/** One rectangle a cell, with numbers and marks where they fit. */
function paintCells(context: CanvasRenderingContext2D, scene: Scene, inks: Ink, first: number, last: number): void {
  const { data, colour, width, height, scroll } = scene;
  const gap = width >= 8 ? 1 : 0;
  const slots = scene.rows === 'slots' && data.choices > 0 ? data.choices : 1;
  const part = (height - gap) / slots;
  const numbers = colour === 'expert' && width >= 17 && part >= 12;
  const events = depthEvents();
  const values = colour !== 'expert' && colour !== 'flip' && colour !== 'depth' && width >= 34 && part >= 15;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  // Once for all cells: a canvas asks the page for its styles whenever a font is set.
  context.font = colour === 'depth' ? `600 11px ${inks.family}` : `${numbers ? 11 : 10}px ${inks.family}`;
  for (let token = first; token <= last; token++) {
    const tile = data.tile('', 1, token);
    const x = GUTTER + token * width - scroll;
    for (let layer = 0; layer < data.layers; layer++) {
      const y = scene.head + layer * height;
      if (!tile) {
        context.fillStyle = inks.empty;
        context.fillRect(x, y, width - gap, height - gap);
        continue;
      }
      const column = token - tile.first;
      let over = inks.text;
      for (let slot = 0; slot < slots; slot++) {
        const fill = slots === 1 ? data.fill(tile, colour, layer, column, inks.none) : slotFill(data, tile, colour, layer, column, slot, inks.none);
        context.fillStyle = fill ? css(fill) : inks.empty;
        context.fillRect(x, y + slot * part, width - gap, part - (slots > 1 && part > 6 ? 1 : 0));
        over = fill ? ink(fill) : inks.text;
        if (fill && (numbers || values)) {
          const value = slots === 1 ? data.value(colour, layer, token) : colour === 'expert' ? tile.at('experts', layer, column, slot) : tile.at('weights', layer, column, slot);
          context.fillStyle = over;
          context.fillText(numbers ? String(value) : digits(value, 2), x + (width - gap) / 2, y + (slot + 0.5) * part + 0.5);
        }
      }
      const event = colour === 'depth' ? events[tile.at('depth', layer, column)] : undefined;
      if (event?.sign && width >= 11 && height >= 11) {
        context.fillStyle = over;
        context.fillText(event.sign, x + (width - gap) / 2, y + (height - gap) / 2 + 0.5);
      } else if (tile.at('skipped', layer, column) > 0) {
        hatch(context, x, y, width - gap, height - gap, inks.faint);
      }
      if (event?.sign || tile.at('skipped', layer, column) > 0) {
        continue;
      }
      if (tile.at('edited', layer, column) > 0 && width >= 4) {
        corner(context, x, y, Math.min(7, width - gap), over);
      }
      if (tile.at('flip', layer, column) > 0 && colour !== 'flip' && width >= 8) {
        context.fillStyle = over;
        context.fillRect(x + 2, y + height - gap - 4, width - gap - 4, 2);
      }
    }
  }
}

/** Every chosen expert of a cell in its own strip: by number, or by weight; other colours belong to the cell as a whole. */
function slotFill(data: MapData, tile: TileData, colour: Colour, layer: number, column: number, slot: number, none: Rgb): Rgb | null {
  const expert = tile.at('experts', layer, column, slot);
  if (!(expert >= 0) || tile.at('skipped', layer, column) > 0) {
    return null;
  }
  if (colour === 'expert') {
    return category(expert);
  }
  if (colour === 'weight') {
    const [low, high] = data.range('weight');
    return quantity((tile.at('weights', layer, column, slot) - Math.min(0, low)) / (high || 1));
  }
  return data.fill(tile, colour, layer, column, none);
}

/** One pixel a cell, stretched: as fast for 48 layers as for one. */
function paintTiles(context: CanvasRenderingContext2D, scene: Scene, inks: Ink, first: number, last: number, bucket: number): void {
  const { data, colour } = scene;
  context.imageSmoothingEnabled = false;
  for (const [tile, from, to] of tilesOf(data, colour, first, last, bucket)) {
    const y = scene.head;
    const high = data.layers * scene.height;
    if (!tile) {
      context.fillStyle = inks.empty;
      context.fillRect(GUTTER + from * scene.width - scene.scroll, y, (to - from) * scene.width, high);
      continue;
    }
    const picture = pictureOf(tile, data.layers, `${colour} ${inks.empty} ${data.range(colour).join()}`, (layer, column) =>
      data.fill(tile, colour, layer, column, inks.none) ?? inks.none
    );
    draw(context, scene, picture, tile, from, to, y, high, data.tokens);
  }
}

/** Below the layers: one row an expert of the layer in view, the brighter the more of the column's tokens chose it. */
function paintLanes(context: CanvasRenderingContext2D, scene: Scene, inks: Ink, first: number, last: number, bucket: number): void {
  const { data } = scene;
  const layer = scene.selected?.layer ?? 0;
  const top = lanesTop(scene, data);
  context.fillStyle = inks.faint;
  context.font = `11px ${inks.family}`;
  context.textAlign = 'left';
  context.textBaseline = 'middle';
  context.fillText(__('Experts of layer %1: bright where a token chose them', layer), GUTTER, top - LANE_GAP / 2 + 1);
  context.fillStyle = inks.empty;
  context.fillRect(GUTTER, top, context.canvas.clientWidth, data.experts * scene.lane);
  if (bucket === 1) {
    const most = data.range('weight')[1] || 1;
    for (let token = first; token <= last; token++) {
      for (const { expert, weight } of data.chosen(layer, token)) {
        context.fillStyle = css(quantity(Math.min(1, weight / most)));
        context.fillRect(GUTTER + token * scene.width - scene.scroll, top + expert * scene.lane, Math.max(1, scene.width - (scene.width >= 8 ? 1 : 0)), scene.lane - (scene.lane >= 6 ? 1 : 0));
      }
    }
    return;
  }
  context.imageSmoothingEnabled = false;
  for (const [tile, from, to] of tilesOf(data, 'lanes', first, last, bucket, layer)) {
    if (tile) {
      const picture = pictureOf(tile, data.experts, `lanes ${inks.empty}`, (expert, column) => {
        const share = tile.lane(expert, column);
        return share > 0 ? mix(inks.none, quantity(Math.sqrt(share)), 0.35 + 0.65 * Math.sqrt(share)) : inks.none;
      });
      draw(context, scene, picture, tile, from, to, top, data.experts * scene.lane, data.tokens);
    }
  }
}

/** Tiles that cover the tokens from `first` to `last`; where one is not here yet, a coarser one, else nothing. */
function* tilesOf(
  data: MapData,
  colour: string,
  first: number,
  last: number,
  bucket: number,
  layer: number | null = null
): Generator<[TileData | null, number, number]> {
  let token = first;
  while (token <= last) {
    let found: TileData | null = null;
    for (let size = bucket; !found && size <= data.tokens * 2; size *= 2) {
      found = data.tile(colour, size, token, layer);
    }
    const span = bucket * COARSE;
    const stop = Math.min(last + 1, (Math.floor(token / span) + 1) * span);
    yield [found, token, stop];
    token = stop;
  }
}

function draw(
  context: CanvasRenderingContext2D,
  scene: Scene,
  picture: HTMLCanvasElement,
  tile: TileData,
  from: number,
  to: number,
  y: number,
  high: number,
  tokens: number
): void {
  const left = Math.max(0, Math.floor((from - tile.first) / tile.bucket));
  const right = Math.min(tile.columns, Math.ceil((to - tile.first) / tile.bucket));
  const start = tile.first + left * tile.bucket;
  const stop = Math.min(tokens, tile.first + right * tile.bucket);
  context.drawImage(
    picture, left, 0, right - left, picture.height, GUTTER + start * scene.width - scene.scroll, y, (stop - start) * scene.width, high
  );
}

interface Picture {
  name: string;
  canvas: HTMLCanvasElement;
}

function pictureOf(tile: TileData, rows: number, name: string, colour: (row: number, column: number) => Rgb): HTMLCanvasElement {
  const kept = tile.picture as Picture | null;
  if (kept?.name === name) {
    return kept.canvas;
  }
  const canvas = document.createElement('canvas');
  canvas.width = tile.columns;
  canvas.height = rows;
  const context = canvas.getContext('2d')!;
  const image = context.createImageData(tile.columns, rows);
  const { data } = image;
  let at = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < tile.columns; column++) {
      const [red, green, blue] = colour(row, column);
      data[at++] = red;
      data[at++] = green;
      data[at++] = blue;
      data[at++] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  tile.picture = { name, canvas } satisfies Picture;
  return canvas;
}

function paintHead(context: CanvasRenderingContext2D, scene: Scene, inks: Ink, first: number, last: number): void {
  const { data, width, head, scroll } = scene;
  const column = scene.hovered?.position ?? scene.selected?.position;
  const upright = context.getTransform();
  const plain = `11px ${inks.family}`;
  context.font = plain;
  context.textAlign = 'left';
  context.textBaseline = 'middle';
  const tick = (token: number, words: string, strong: boolean, colour: string): void => {
    context.translate(GUTTER + (token + 0.5) * width - scroll - 1, head - 5);
    context.rotate(-SLANT);
    context.fillStyle = colour;
    if (strong) {
      context.font = `600 ${plain}`;
    }
    context.fillText(words, 0, 0);
    if (strong) {
      context.font = plain;
    }
    context.setTransform(upright);
  };
  const colourOf = (token: number): string => (token === scene.selected?.position || token === column ? inks.text : inks.faint);
  if (width < 4) {
    // Single tokens are too thin for their texts: every so often the number of a token.
    const step = niceStep(64 / width);
    for (let token = Math.ceil(first / step) * step; token <= last; token += step) {
      tick(token, token.toLocaleString(), false, inks.faint);
    }
    return;
  }
  const every = Math.max(1, Math.ceil(11 / width));
  for (let token = first; token <= last; token++) {
    if (token % every === 0 || token === column) {
      tick(token, label(data.text(token) ?? '…'), token === column || token === scene.selected?.position, colourOf(token));
    }
  }
}

function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * ([1, 2, 5].find(factor => factor * power >= least) ?? 10);
}

function paintFrames(context: CanvasRenderingContext2D, scene: Scene, inks: Ink): void {
  const frame = (layers: [number, number], tokens: [number, number], colour: string, weight: number, dash: number[]): void => {
    context.strokeStyle = colour;
    context.lineWidth = weight;
    context.setLineDash(dash);
    context.strokeRect(
      GUTTER + tokens[0] * scene.width - scene.scroll - 0.5,
      scene.head + layers[0] * scene.height - 0.5,
      Math.max(3, (tokens[1] - tokens[0] + 1) * scene.width),
      (layers[1] - layers[0] + 1) * scene.height
    );
    context.setLineDash([]);
  };
  const cell = ({ layer, position }: Place, colour: string, weight: number, dash: number[]): void =>
    frame([layer, layer], [position, position], colour, weight, dash);
  if (scene.hovered) {
    cell(scene.hovered, inks.text, 1, []);
  }
  if (scene.box) {
    frame(scene.box.layers, scene.box.tokens, inks.paper, 4, []);
    frame(scene.box.layers, scene.box.tokens, inks.accent, 2, [6, 3]);
  }
  if (scene.selected) {
    cell(scene.selected, inks.paper, 4, []);
    cell(scene.selected, inks.text, 2, []);
  }
  if (scene.focused) {
    cell(scene.cursor, inks.paper, 4, []);
    cell(scene.cursor, inks.accent, 2, [4, 2]);
  }
}

function paintGutter(context: CanvasRenderingContext2D, scene: Scene, inks: Ink): void {
  const { data, height, head } = scene;
  context.font = `11px ${inks.family}`;
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  const every = height >= 11 ? 1 : 4;
  const row = scene.hovered?.layer ?? (scene.focused ? scene.cursor.layer : scene.selected?.layer);
  for (let layer = 0; layer < data.layers; layer++) {
    if (layer % every === 0 || layer === row) {
      context.fillStyle = layer === row ? inks.text : inks.faint;
      context.fillText(String(layer), GUTTER - 7, head + (layer + 0.5) * height);
    }
  }
  if (scene.rows === 'lanes') {
    const step = Math.max(1, Math.ceil(11 / scene.lane));
    context.fillStyle = inks.faint;
    for (let expert = 0; expert < data.experts; expert += step) {
      context.fillText(String(expert), GUTTER - 7, lanesTop(scene, data) + (expert + 0.5) * scene.lane);
    }
  }
  context.fillStyle = inks.faint;
  context.fillText(__('layer'), GUTTER - 5, head - 9);
}

/** A token as the head of its column. */
export function label(text: string): string {
  const visible = [...shown(text.replace(/^ (?=.)/, ''))];
  return visible.length > LABEL ? `${visible.slice(0, LABEL - 1).join('')}…` : visible.join('');
}

export function hatch(context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number, colour: string): void {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  for (let step = -height; step < width; step += 5) {
    context.moveTo(x + step, y + height);
    context.lineTo(x + step + height, y);
  }
  context.stroke();
  context.restore();
}

function corner(context: CanvasRenderingContext2D, x: number, y: number, size: number, colour: string): void {
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.fill();
}

const probes = new Map<string, Rgb>();

/** A colour of the theme as numbers. */
export function readColour(text: string): Rgb {
  let found = probes.get(text);
  if (!found) {
    const probe = document.createElement('canvas').getContext('2d')!;
    probe.fillStyle = text;
    probe.fillRect(0, 0, 1, 1);
    const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
    found = [red!, green!, blue!];
    probes.set(text, found);
  }
  return found;
}
