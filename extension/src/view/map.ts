/** The routing map: tokens across, layers down, one coloured cell each, on a canvas as wide as the window. */
import { h, setAttr, shown } from './dom';
import { type Colour, MapData } from './mapdata';
import { type Rgb, css, digits, ink } from './scale';
import { __ } from './words';

const GUTTER = 34;
/** Slope of the labels, and the longest label in characters. */
const SLANT = Math.PI / 3.4;
const LABEL = 9;
/** Room for the slanted label of the last token. */
const TAIL = 34;
const WIDEST = 44;
const NARROWEST = 3;

export interface Place {
  layer: number;
  position: number;
}

export class RoutingMapView {
  readonly node: HTMLElement;
  private readonly scroller: HTMLElement;
  private readonly spacer: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly context: CanvasRenderingContext2D;
  private readonly readout: HTMLElement;
  private readonly spoken: HTMLElement;
  private data: MapData | null = null;
  private colour: Colour = 'expert';
  private cursor: Place = { layer: 0, position: 0 };
  private selected: Place | null = null;
  private hovered: Place | null = null;
  private zoom = 1;
  private width = 12;
  private height = 20;
  private head = 30;
  private frame = 0;

  constructor(private readonly onSelect: (place: Place) => void) {
    this.canvas = h('canvas', {
      class: 'wb-map-canvas',
      attrs: { tabindex: '0', role: 'application', 'aria-label': __('Routing map, empty') },
      on: {
        keydown: event => this.key(event),
        pointermove: event => this.hover(this.placeAt(event)),
        pointerleave: () => this.hover(null),
        click: event => this.press(this.placeAt(event)),
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
    new ResizeObserver(() => this.layout()).observe(this.scroller);
  }

  show(data: MapData | null): void {
    const other = data?.tokens !== this.data?.tokens;
    this.data = data;
    if (data && other) {
      this.zoom = 1;
      this.scroller.scrollLeft = 0;
    }
    if (data) {
      this.cursor = {
        layer: Math.min(this.cursor.layer, data.layers - 1),
        position: Math.min(this.cursor.position, data.tokens - 1)
      };
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

  select(place: Place | null): void {
    this.selected = place;
    if (place) {
      this.cursor = { ...place };
      this.reveal(place.position);
    }
    this.draw();
    this.tell();
  }

  zoomBy(factor: number): void {
    const middle = (this.scroller.scrollLeft + this.scroller.clientWidth / 2 - GUTTER) / this.width;
    this.zoom = factor === 0 ? 1 : Math.min(40, Math.max(0.2, this.zoom * factor));
    this.layout();
    this.scroller.scrollLeft = middle * this.width + GUTTER - this.scroller.clientWidth / 2;
  }

  /** Draws again, for instance after a change of theme. */
  draw(): void {
    if (this.frame === 0) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.paint();
      });
    }
  }

  private layout(): void {
    const room = this.scroller.clientWidth;
    if (!this.data || room === 0) {
      this.draw();
      return;
    }
    const data = this.data;
    const { tokens, layers } = data;
    const fit = (room - GUTTER - TAIL) / tokens;
    this.width = Math.max(NARROWEST, Math.min(WIDEST, Math.max(13, fit)) * this.zoom);
    this.height = layers <= 12 ? 24 : layers <= 24 ? 18 : layers <= 40 ? 13 : 9;
    const longest = data.texts.reduce((most, text) => Math.max(most, label(text).length), 0);
    this.head = Math.round(18 + 6.5 * longest * Math.sin(SLANT));
    const wide = Math.ceil(GUTTER + tokens * this.width + TAIL);
    const high = this.head + layers * this.height + 2;
    this.spacer.style.width = `${wide}px`;
    this.spacer.style.height = `${high}px`;
    this.canvas.style.width = `${Math.min(room, wide)}px`;
    this.canvas.style.height = `${high}px`;
    this.draw();
  }

  private reveal(position: number): void {
    const left = GUTTER + position * this.width;
    const { scrollLeft, clientWidth } = this.scroller;
    if (left - GUTTER < scrollLeft) {
      this.scroller.scrollLeft = left - GUTTER;
    } else if (left + this.width > scrollLeft + clientWidth) {
      this.scroller.scrollLeft = left + this.width - clientWidth + 2;
    }
  }

  private paint(): void {
    const ratio = window.devicePixelRatio || 1;
    const wide = this.canvas.clientWidth;
    const high = this.canvas.clientHeight;
    this.canvas.width = Math.round(wide * ratio);
    this.canvas.height = Math.round(high * ratio);
    const context = this.context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, wide, high);
    const data = this.data;
    if (!data) {
      return;
    }
    const style = getComputedStyle(this.node);
    const paper = style.getPropertyValue('--wb-paper').trim() || '#fff';
    const text = style.getPropertyValue('--wb-ink').trim() || '#000';
    const faint = style.getPropertyValue('--wb-ink-2').trim() || '#666';
    const accent = style.getPropertyValue('--wb-accent').trim() || '#1976d2';
    const empty = style.getPropertyValue('--wb-cell').trim() || '#eee';
    const family = style.fontFamily;
    const scroll = this.scroller.scrollLeft;
    const first = Math.max(0, Math.floor((scroll - GUTTER) / this.width));
    const last = Math.min(data.tokens - 1, Math.ceil((scroll + wide - GUTTER) / this.width));
    const gap = this.width >= 8 ? 1 : 0;
    const agree = readColour(empty);

    context.save();
    context.beginPath();
    context.rect(GUTTER, 0, wide - GUTTER, high);
    context.clip();
    const numbers = this.colour === 'expert' && this.width >= 17 && this.height >= 13;
    const values = this.colour !== 'expert' && this.colour !== 'flip' && this.width >= 34 && this.height >= 18;
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (let layer = 0; layer < data.layers; layer++) {
      const y = this.head + layer * this.height;
      for (let token = first; token <= last; token++) {
        const x = GUTTER + token * this.width - scroll;
        const fill = data.fill(this.colour, layer, token, agree);
        context.fillStyle = fill ? css(fill) : empty;
        context.fillRect(x, y, this.width - gap, this.height - gap);
        const high = fill ? ink(fill) : text;
        if (fill && (numbers || values)) {
          const value = data.value(this.colour, layer, token);
          context.fillStyle = high;
          context.font = `${numbers ? 11 : 10}px ${family}`;
          context.fillText(
            numbers ? String(value) : digits(value, 2),
            x + (this.width - gap) / 2,
            y + (this.height - gap) / 2 + 0.5
          );
        }
        if (data.skipped(layer, token)) {
          hatch(context, x, y, this.width - gap, this.height - gap, faint);
        } else {
          if (data.wasEdited(layer, token)) {
            corner(context, x, y, Math.min(7, this.width - gap), high);
          }
          if (data.flipped(layer, token) && this.colour !== 'flip' && this.width >= 8) {
            context.fillStyle = high;
            context.fillRect(x + 2, y + this.height - gap - 4, this.width - gap - 4, 2);
          }
        }
      }
    }
    this.paintHead(context, data, first, last, scroll, text, faint, accent, family);
    const focused = document.activeElement === this.canvas;
    if (this.hovered) {
      this.frameCell(context, this.hovered, scroll, text, 1, []);
    }
    if (this.selected) {
      this.frameCell(context, this.selected, scroll, paper, 4, []);
      this.frameCell(context, this.selected, scroll, text, 2, []);
    }
    if (focused) {
      this.frameCell(context, this.cursor, scroll, paper, 4, []);
      this.frameCell(context, this.cursor, scroll, accent, 2, [4, 2]);
    }
    context.restore();

    context.font = `11px ${family}`;
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    const every = this.height >= 11 ? 1 : 4;
    const row = this.hovered?.layer ?? (focused ? this.cursor.layer : this.selected?.layer);
    for (let layer = 0; layer < data.layers; layer++) {
      if (layer % every === 0 || layer === row) {
        context.fillStyle = layer === row ? text : faint;
        context.fillText(String(layer), GUTTER - 7, this.head + (layer + 0.5) * this.height);
      }
    }
    context.fillStyle = faint;
    context.fillText(__('layer'), GUTTER - 5, this.head - 9);
  }

  private paintHead(
    context: CanvasRenderingContext2D,
    data: MapData,
    first: number,
    last: number,
    scroll: number,
    text: string,
    faint: string,
    accent: string,
    family: string
  ): void {
    const every = Math.max(1, Math.ceil(11 / this.width));
    const column = this.hovered?.position ?? this.selected?.position;
    for (let token = first; token <= last; token++) {
      if (token % every !== 0 && token !== column) {
        continue;
      }
      context.save();
      context.translate(GUTTER + (token + 0.5) * this.width - scroll - 1, this.head - 5);
      context.rotate(-SLANT);
      context.textAlign = 'left';
      context.textBaseline = 'middle';
      context.font = `${token === column ? '600 ' : ''}11px ${family}`;
      context.fillStyle = token === this.selected?.position ? accent : token === column ? text : faint;
      context.fillText(label(data.texts[token]!), 0, 0);
      context.restore();
    }
  }

  private frameCell(
    context: CanvasRenderingContext2D,
    place: Place,
    scroll: number,
    colour: string,
    weight: number,
    dash: number[]
  ): void {
    context.strokeStyle = colour;
    context.lineWidth = weight;
    context.setLineDash(dash);
    context.strokeRect(
      GUTTER + place.position * this.width - scroll - 0.5,
      this.head + place.layer * this.height - 0.5,
      this.width,
      this.height
    );
    context.setLineDash([]);
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

  private hover(place: Place | null): void {
    if (place?.layer !== this.hovered?.layer || place?.position !== this.hovered?.position) {
      this.hovered = place;
      this.canvas.style.cursor = place ? 'pointer' : '';
      this.draw();
      this.tell();
    }
  }

  private press(place: Place | null): void {
    if (place) {
      this.cursor = place;
      this.selected = place;
      this.draw();
      this.onSelect(place);
    }
  }

  private wheel(event: WheelEvent): void {
    if (event.ctrlKey) {
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    }
  }

  private key(event: KeyboardEvent): void {
    if (!this.data || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const { tokens, layers } = this.data;
    const { layer, position } = this.cursor;
    const moves: Record<string, Place> = {
      ArrowLeft: { layer, position: position - 1 },
      ArrowRight: { layer, position: position + 1 },
      ArrowUp: { layer: layer - 1, position },
      ArrowDown: { layer: layer + 1, position },
      Home: { layer, position: 0 },
      End: { layer, position: tokens - 1 },
      PageUp: { layer: 0, position },
      PageDown: { layer: layers - 1, position }
    };
    const move = moves[event.key];
    if (move) {
      this.cursor = {
        layer: Math.min(layers - 1, Math.max(0, move.layer)),
        position: Math.min(tokens - 1, Math.max(0, move.position))
      };
      this.reveal(this.cursor.position);
      this.draw();
      this.tell();
      this.spoken.textContent = this.readout.textContent;
    } else if (event.key === 'Enter' || event.key === ' ') {
      this.press({ ...this.cursor });
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
    if (!data || !place || place.position >= data.tokens) {
      this.readout.textContent = '';
      return;
    }
    this.readout.textContent = describe(data, place);
    this.canvas.setAttribute(
      'aria-label',
      __('Routing map, %1 tokens, %2 layers, arrow keys move, Enter inspects.', data.tokens, data.layers)
    );
  }
}

/** A token as the head of its column. */
function label(text: string): string {
  const visible = [...shown(text.replace(/^ (?=.)/, ''))];
  return visible.length > LABEL ? `${visible.slice(0, LABEL - 1).join('')}…` : visible.join('');
}

/** One cell in words. */
export function describe(data: MapData, { layer, position }: Place): string {
  const parts = [__('layer %1', layer), __('token %1 “%2”', position, shown(data.texts[position] ?? ''))];
  if (data.skipped(layer, position)) {
    parts.push(__('block skipped'));
    return parts.join(' · ');
  }
  const chosen = data.chosen(layer, position);
  if (chosen.length) {
    parts.push(
      __('experts %1', chosen.map(({ expert, weight }) => `${expert} (${digits(weight, 3)})`).join(', ')),
      __('margin %1', digits(data.value('margin', layer, position), 3)),
      __('entropy %1 nats', digits(data.value('entropy', layer, position), 3))
    );
  }
  parts.push(__('influence %1', digits(data.value('influence', layer, position), 3)));
  if (data.wasEdited(layer, position)) {
    parts.push(__('re-routed by the plan'));
  }
  if (data.flipped(layer, position)) {
    parts.push(__('flipped against base'));
  }
  return parts.join(' · ');
}

export function hatch(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  width: number,
  height: number,
  colour: string
): void {
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

function readColour(text: string): Rgb {
  const probe = document.createElement('canvas').getContext('2d')!;
  probe.fillStyle = text;
  probe.fillRect(0, 0, 1, 1);
  const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
  return [red!, green!, blue!];
}
