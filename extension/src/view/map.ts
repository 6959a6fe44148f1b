/** The routing map: tokens across, layers down, one coloured cell each, on a canvas as wide as the window. */
import { describe } from './cellwords';
import { h, setAttr } from './dom';
import { type Colour, type MapData, type Want } from './mapdata';
import { type Box, GUTTER, type Geometry, type Place, type Rows, SLANT, label, lanesTop, paint } from './paint';
import { __ } from './words';

export type { Box, Place, Rows } from './paint';

/** Rows as chosen; `zoom`: every choice of a cell as soon as there is room for it. */
export type Arrangement = Rows | 'zoom';

/** Room for the slanted label of the last token. */
const TAIL = 34;
const WIDEST = 60;
const NARROWEST = 3;
/** A map with more tokens than this starts as a whole, not at a width that can be read. */
const LONG = 1500;
/** A token as wide as this has room for every choice. */
const ROOMY = 30;
/** A pointer that moves less is a click. */
const SLIP = 4;

export interface MapActions {
  select: (place: Place) => void;
  /** The box has changed. */
  brush: (box: Box | null) => void;
  /** Tiles that would be drawn if they were here. */
  want: (wants: Want[]) => void;
  /** The rows have moved, so that what stands beside them has to follow. */
  placed: (geometry: Geometry) => void;
}

export class RoutingMapView {
  readonly node: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  private readonly scroller: HTMLElement;
  private readonly spacer: HTMLElement;
  private readonly context: CanvasRenderingContext2D;
  private readonly readout: HTMLElement;
  private readonly spoken: HTMLElement;
  private data: MapData | null = null;
  private colour: Colour = 'expert';
  private arrangement: Arrangement = 'zoom';
  private cursor: Place = { layer: 0, position: 0 };
  private selected: Place | null = null;
  /** The map in which the selected place was brought into sight. */
  private revealed: MapData | null = null;
  private hovered: Place | null = null;
  /** A token that is to come into sight. */
  private wanted: number | null = null;
  private box: Box | null = null;
  private press: { at: Place; x: number; y: number; header: 'row' | 'column' | null } | null = null;
  /** Whether the width is the one that a map starts with, which follows the room there is. */
  private fitted = true;
  private width = 12;
  private height = 20;
  private lane = 8;
  private head = 30;
  private frame = 0;

  constructor(private readonly actions: MapActions) {
    this.canvas = h('canvas', {
      class: 'wb-map-canvas',
      attrs: { tabindex: '0', role: 'application', 'aria-label': __('Routing map, empty') },
      on: {
        keydown: event => this.key(event),
        pointermove: event => this.move(event),
        pointerleave: () => this.hover(null),
        pointerdown: event => this.down(event),
        pointerup: event => this.up(event),
        focus: () => this.draw(),
        blur: () => this.draw()
      }
    });
    this.context = this.canvas.getContext('2d')!;
    this.spacer = h('div', { class: 'wb-map-spacer' });
    this.scroller = h(
      'div',
      { class: 'wb-map-scroll', on: { scroll: () => this.draw(), wheel: event => this.wheel(event) } },
      this.spacer
    );
    this.spacer.append(this.canvas);
    this.readout = h('div', { class: 'wb-readout', attrs: { 'aria-hidden': 'true' } });
    this.spoken = h('div', { class: 'wb-hidden', attrs: { role: 'status', 'aria-live': 'polite' } });
    this.node = h('div', { class: 'wb-map', attrs: { 'data-wb-map': '' } }, this.scroller, this.readout, this.spoken);
    const sizes = new ResizeObserver(() => this.layout());
    sizes.observe(this.scroller);
    sizes.observe(this.canvas); // it has no width while a theme's style sheets are exchanged, whatever its scroller has
  }

  show(data: MapData | null): void {
    const other = data?.tokens !== this.data?.tokens;
    this.data = data;
    if (data && other) {
      this.fitted = true;
      this.scroller.scrollLeft = 0;
    }
    if (data) {
      this.cursor = clamp(this.cursor, data);
      if (this.box && (this.box.tokens[1] >= data.tokens || this.box.layers[1] >= data.layers)) {
        this.brush(null);
      }
    }
    setAttr(this.node, 'data-wb-tokens', data ? String(data.tokens) : undefined);
    setAttr(this.node, 'data-wb-layers', data ? String(data.layers) : undefined);
    this.layout();
    this.tell();
  }

  colourBy(colour: Colour): void {
    this.colour = colour;
    setAttr(this.node, 'data-wb-color', colour);
    this.draw();
    this.tell();
  }

  arrange(arrangement: Arrangement): void {
    this.arrangement = arrangement;
    this.layout();
  }

  /** How the rows are drawn at this zoom. */
  private get rows(): Rows {
    if (this.arrangement !== 'zoom') {
      return this.arrangement;
    }
    return !this.fitted && this.width >= ROOMY && (this.data?.choices ?? 0) > 1 ? 'slots' : 'layers';
  }

  select(place: Place | null): void {
    if (place?.layer === this.selected?.layer && place?.position === this.selected?.position && this.revealed === this.data) {
      return;
    }
    this.selected = place;
    this.revealed = this.data;
    if (place && this.data) {
      this.cursor = clamp(place, this.data);
      this.reveal(this.cursor.position);
    }
    this.draw();
    this.tell();
  }

  /** Marks a box of layers and tokens, or none. */
  brush(box: Box | null): void {
    this.box = box;
    setAttr(this.node, 'data-wb-box', box ? `${box.layers.join('-')},${box.tokens.join('-')}` : undefined);
    this.actions.brush(box);
    this.draw();
  }

  zoomBy(factor: number, x = this.scroller.clientWidth / 2): void {
    if (!this.data) {
      return;
    }
    const token = (this.scroller.scrollLeft + x - GUTTER) / this.width;
    const least = Math.min(NARROWEST, this.whole());
    this.fitted = false;
    this.width = factor === 0 ? this.whole() : Math.min(WIDEST, Math.max(least, this.width * factor));
    this.layout();
    this.scroller.scrollLeft = token * this.width + GUTTER - x;
  }

  /** Draws again, for instance after a change of theme or when a tile has come. */
  draw(): void {
    if (this.frame === 0) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.paint();
      });
    }
  }

  /** The width of a token with which all of them are in sight. */
  private whole(): number {
    const room = Math.max(50, this.scroller.clientWidth - GUTTER - TAIL);
    return Math.min(44, room / Math.max(1, this.data?.tokens ?? 1));
  }

  /** The width a map starts with. */
  private fit(): number {
    return (this.data?.tokens ?? 0) > LONG ? this.whole() : Math.max(13, this.whole());
  }

  private layout(): void {
    const room = this.scroller.clientWidth;
    if (!this.data || room === 0) {
      this.draw();
      return;
    }
    const data = this.data;
    const { tokens, layers } = data;
    if (this.fitted) {
      this.width = this.fit();
    }
    const plain = layers <= 12 ? 24 : layers <= 24 ? 18 : layers <= 40 ? 13 : 9;
    this.height = this.rows === 'slots' && data.choices > 1 ? Math.max(plain, data.choices * (layers <= 12 ? 13 : 5)) : plain;
    setAttr(this.node, 'data-wb-rows', this.rows);
    this.lane = data.experts <= 16 ? 12 : data.experts <= 64 ? 6 : 3;
    let longest = 6;
    if (data.whole) {
      longest = 0;
      for (let token = 0; token < tokens; token++) {
        longest = Math.max(longest, label(data.text(token) ?? '').length);
      }
    }
    this.head = Math.round(18 + 6.5 * longest * Math.sin(SLANT));
    const wide = Math.ceil(GUTTER + tokens * this.width + TAIL);
    const lanes = this.rows === 'lanes' ? lanesTop(this.geometry(), data) - this.head - layers * this.height + data.experts * this.lane : 0;
    const high = this.head + layers * this.height + 2 + lanes;
    this.spacer.style.width = `${wide}px`;
    this.spacer.style.height = `${high}px`;
    this.canvas.style.width = `${Math.min(room, wide)}px`;
    this.canvas.style.height = `${high}px`;
    this.actions.placed(this.geometry());
    this.draw();
  }

  private geometry(): Geometry {
    return { width: this.width, height: this.height, head: this.head, lane: this.lane, scroll: this.scroller.scrollLeft };
  }

  /** Brings a token into sight with the next frame, when the page is measured anyway. */
  private reveal(position: number): void {
    this.wanted = position;
  }

  private scrollTo(position: number): void {
    const left = GUTTER + position * this.width;
    const { scrollLeft, clientWidth } = this.scroller;
    if (left - GUTTER < scrollLeft) {
      this.scroller.scrollLeft = left - GUTTER;
    } else if (left + this.width > scrollLeft + clientWidth) {
      this.scroller.scrollLeft = left + this.width - clientWidth + 2;
    }
  }

  private paint(): void {
    if (!this.canvas.clientWidth) {
      return; // not laid out, as for a moment after a change of theme: what stands there would be wiped away
    }
    const data = this.data;
    if (this.wanted !== null) {
      this.scrollTo(this.wanted);
      this.wanted = null;
    }
    const focused = document.activeElement === this.canvas;
    paint(
      this.canvas,
      this.context,
      this.node,
      data && {
        ...this.geometry(),
        data,
        colour: this.colour,
        rows: this.rows,
        cursor: this.cursor,
        selected: this.selected,
        hovered: this.hovered,
        box: this.box,
        focused
      }
    );
    if (data && !data.whole) {
      const bucket = data.bucket(this.width);
      const first = Math.floor((this.scroller.scrollLeft - GUTTER) / this.width);
      const last = Math.ceil((this.scroller.scrollLeft + this.canvas.clientWidth) / this.width);
      const wants = data.missing(this.colour, bucket, first, last, this.rows === 'lanes' ? (this.selected?.layer ?? 0) : null);
      if (this.selected) {
        // The selected token in full, whatever the zoom: its text, and its neighbours' for the strip of tokens.
        wants.push(...data.missing(this.colour, 1, this.selected.position, this.selected.position, null));
      }
      setAttr(this.node, 'data-wb-missing', String(wants.length));
      this.actions.want(wants);
    }
  }

  private placeAt(event: MouseEvent): Place | null {
    if (!this.data) {
      return null;
    }
    const box = this.canvas.getBoundingClientRect();
    const layer = Math.floor((event.clientY - box.top - this.head) / this.height);
    const position = Math.floor((event.clientX - box.left - GUTTER + this.scroller.scrollLeft) / this.width);
    const inside = layer >= 0 && layer < this.data.layers && position >= 0 && position < this.data.tokens;
    return inside && event.clientX - box.left >= GUTTER ? { layer, position } : null;
  }

  private move(event: PointerEvent): void {
    const press = this.press;
    const data = this.data;
    if (press && data && Math.hypot(event.clientX - press.x, event.clientY - press.y) > SLIP && !press.header) {
      const bounds = this.canvas.getBoundingClientRect();
      const to = clamp(
        {
          layer: Math.floor((event.clientY - bounds.top - this.head) / this.height),
          position: Math.floor((event.clientX - bounds.left - GUTTER + this.scroller.scrollLeft) / this.width)
        },
        data
      );
      this.brush(boxOf(press.at, to));
    }
    this.hover(this.placeAt(event));
  }

  private down(event: PointerEvent): void {
    const data = this.data;
    if (!data || event.button !== 0) {
      return;
    }
    const bounds = this.canvas.getBoundingClientRect();
    const place = this.placeAt(event);
    const y = event.clientY - bounds.top;
    const x = event.clientX - bounds.left;
    const at = clamp(
      { layer: Math.floor((y - this.head) / this.height), position: Math.floor((x - GUTTER + this.scroller.scrollLeft) / this.width) },
      data
    );
    const header = place ? null : x < GUTTER && y >= this.head ? 'row' : y < this.head && x >= GUTTER ? 'column' : null;
    if (place || header) {
      this.press = { at, x: event.clientX, y: event.clientY, header };
      this.canvas.setPointerCapture(event.pointerId);
    }
  }

  private up(event: PointerEvent): void {
    const press = this.press;
    this.press = null;
    const data = this.data;
    if (!press || !data) {
      return;
    }
    if (press.header === 'row') {
      this.brush({ layers: [press.at.layer, press.at.layer], tokens: [0, data.tokens - 1] });
    } else if (press.header === 'column') {
      this.brush({ layers: [0, data.layers - 1], tokens: [press.at.position, press.at.position] });
    } else if (Math.hypot(event.clientX - press.x, event.clientY - press.y) <= SLIP) {
      if (event.shiftKey && this.selected) {
        this.brush(boxOf(this.selected, press.at));
      } else {
        this.choose(press.at);
      }
    }
  }

  private hover(place: Place | null): void {
    if (place?.layer !== this.hovered?.layer || place?.position !== this.hovered?.position) {
      this.hovered = place;
      this.canvas.style.cursor = place ? 'pointer' : '';
      this.draw();
      this.tell();
    }
  }

  private choose(place: Place): void {
    this.cursor = place;
    this.selected = place;
    if (this.box) {
      this.brush(null);
    }
    this.draw();
    this.actions.select(place);
  }

  private wheel(event: WheelEvent): void {
    if (event.ctrlKey) {
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.clientX - this.scroller.getBoundingClientRect().left);
    }
  }

  private key(event: KeyboardEvent): void {
    const data = this.data;
    if (!data || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const { layer, position } = this.cursor;
    const column = Math.max(1, data.bucket(this.width));
    const moves: Record<string, Place> = {
      ArrowLeft: { layer, position: position - column },
      ArrowRight: { layer, position: position + column },
      ArrowUp: { layer: layer - 1, position },
      ArrowDown: { layer: layer + 1, position },
      Home: { layer, position: 0 },
      End: { layer, position: data.tokens - 1 },
      PageUp: { layer: 0, position },
      PageDown: { layer: data.layers - 1, position }
    };
    const move = moves[event.key];
    if (move) {
      const from = this.cursor;
      this.cursor = clamp(move, data);
      if (event.shiftKey) {
        this.brush(this.box ? grow(this.box, from, this.cursor) : boxOf(from, this.cursor));
      }
      this.reveal(this.cursor.position);
      this.draw();
      this.tell();
      this.spoken.textContent = this.readout.textContent;
    } else if (event.key === 'Escape' && this.box) {
      this.brush(null);
    } else if (event.key === 'Enter' || event.key === ' ') {
      this.choose({ ...this.cursor });
    } else if (event.key === '+' || event.key === '=') {
      this.zoomBy(1.25);
    } else if (event.key === '-') {
      this.zoomBy(0.8);
    } else if (event.key === '0') {
      this.zoomBy(0);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** Says in words what is under the pointer, else under the cursor. */
  private tell(): void {
    const data = this.data;
    const focused = document.activeElement === this.canvas;
    const place = this.hovered ?? (focused ? this.cursor : this.selected);
    if (!data || !place || place.position >= data.tokens || place.layer >= data.layers) {
      this.readout.textContent = '';
      return;
    }
    this.readout.textContent = describe(data, place, this.colour, data.bucket(this.width));
    this.canvas.setAttribute(
      'aria-label',
      __('Routing map, %1 tokens, %2 layers, arrow keys move, Enter inspects, Shift and arrows mark a box.', data.tokens, data.layers)
    );
  }
}

function clamp({ layer, position }: Place, data: MapData): Place {
  return {
    layer: Math.min(data.layers - 1, Math.max(0, layer)),
    position: Math.min(data.tokens - 1, Math.max(0, position))
  };
}

function boxOf(one: Place, other: Place): Box {
  const order = (a: number, b: number): [number, number] => [Math.min(a, b), Math.max(a, b)];
  return { layers: order(one.layer, other.layer), tokens: order(one.position, other.position) };
}

/** A box whose corner moves from one place to another, the opposite corner staying. */
function grow(box: Box, from: Place, to: Place): Box {
  const fixed = (range: [number, number], at: number): number => (at === range[1] ? range[0] : range[1]);
  return boxOf({ layer: fixed(box.layers, from.layer), position: fixed(box.tokens, from.position) }, to);
}
