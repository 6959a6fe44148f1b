/** The load of every expert, one row a layer, beside the map and level with it. */
import { h, setAttr } from './dom';
import { readArray } from './mapdata';
import type { Geometry } from './paint';
import type { Load } from './protocol';
import { css, digits, quantity } from './scale';
import { __ } from './words';

const WIDE = 132;

export class LoadStrip {
  readonly node: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly note = h('div', { class: 'wb-quiet wb-load-note' });
  private geometry: Geometry | null = null;
  private load: ArrayLike<number> | null = null;
  private layers = 0;
  private experts = 0;
  run = '';

  constructor() {
    this.canvas = h('canvas', {
      attrs: { role: 'img', 'aria-label': __('Load of every expert by layer') },
      on: { pointermove: event => this.tell(event), pointerleave: () => (this.note.textContent = '') }
    });
    this.node = h('div', { class: 'wb-load', attrs: { hidden: true } }, this.canvas, this.note);
  }

  /** New loads, or none. */
  show(message: Load | null, buffers: DataView[] = []): void {
    this.run = message?.run ?? '';
    this.load = message ? readArray(message.array, buffers[0]!) : null;
    [this.layers, this.experts] = (message?.array.shape as [number, number] | undefined) ?? [0, 0];
    this.node.hidden = !this.load || this.experts === 0;
    setAttr(this.node, 'data-wb-load', message ? message.run : undefined);
    this.draw();
  }

  place(geometry: Geometry): void {
    const { head, height } = geometry;
    const moved = head !== this.geometry?.head || height !== this.geometry?.height;
    this.geometry = { ...geometry };
    if (moved) {
      this.draw();
    }
  }

  draw(): void {
    if (!this.load || !this.geometry) {
      return;
    }
    const { head, height } = this.geometry;
    const ratio = window.devicePixelRatio || 1;
    const high = head + this.layers * height + 2;
    this.canvas.width = WIDE * ratio;
    this.canvas.height = high * ratio;
    this.canvas.style.width = `${WIDE}px`;
    this.canvas.style.height = `${high}px`;
    const context = this.canvas.getContext('2d')!;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(this.node);
    context.fillStyle = style.getPropertyValue('--wb-ink-2').trim() || '#666';
    context.font = `11px ${style.fontFamily}`;
    context.textBaseline = 'middle';
    context.fillText(__('expert load'), 0, head - 9);
    const width = WIDE / this.experts;
    for (let layer = 0; layer < this.layers; layer++) {
      for (let expert = 0; expert < this.experts; expert++) {
        const share = this.load[layer * this.experts + expert]!;
        if (Number.isFinite(share)) {
          // Even load is a third of the scale, so that both an idle and a crowded expert stand out.
          context.fillStyle = css(quantity(Math.min(1, (share * this.experts) / 3)));
          context.fillRect(expert * width, head + layer * height, Math.max(width - (width > 5 ? 1 : 0), 0.6), height - 1);
        }
      }
    }
  }

  private tell(event: MouseEvent): void {
    if (!this.load || !this.geometry) {
      return;
    }
    const box = this.canvas.getBoundingClientRect();
    const layer = Math.floor((event.clientY - box.top - this.geometry.head) / this.geometry.height);
    const expert = Math.floor(((event.clientX - box.left) / WIDE) * this.experts);
    const share = layer >= 0 && layer < this.layers ? this.load[layer * this.experts + expert] : undefined;
    this.note.textContent =
      share === undefined || !Number.isFinite(share)
        ? ''
        : __('layer %1 · expert %2: %3 % of the choices, %4 × even', layer, expert, digits(100 * share, 3), digits(share * this.experts, 2));
  }
}
