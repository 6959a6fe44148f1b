/** The heads of a layer: the pattern of each, to be seen before it is masked. */
import type { ComputeRequest, ControlRequest } from './channel';
import { button, h, setAttr } from './dom';
import { toggleHead } from './edits';
import { readArray } from './mapdata';
import type { Heads, Inspection, PlanCard } from './protocol';
import { quantity } from './scale';
import { __ } from './words';

export class HeadsCard {
  readonly node: HTMLElement;
  private readonly list = h('div', { class: 'wb-heads' });
  private readonly title = h('span', { class: 'wb-quiet' });
  private told: { message: Heads; values: ArrayLike<number> } | null = null;
  private plan: PlanCard | null = null;
  private layer: number | undefined;

  constructor(
    private readonly send: (request: ControlRequest) => void,
    private readonly compute: (request: ComputeRequest) => void
  ) {
    const close = button('×', 'close-heads', __('Close the heads'), () => this.take(null));
    setAttr(close, 'aria-label', __('Close the heads'));
    this.node = h(
      'div',
      { class: 'wb-trials', attrs: { hidden: true } },
      h('div', { class: 'wb-row' }, this.title, h('span', { class: 'wb-grow' }), close),
      this.list
    );
  }

  ask(layer: number): void {
    this.compute({ type: 'heads_of', layer });
  }

  show(cell: Inspection | null, plan: PlanCard | null): void {
    this.plan = plan;
    this.layer = cell?.layer;
    if (this.told && (cell?.layer !== this.told.message.layer || cell.run !== this.told.message.run)) {
      // A pattern belongs to one layer of one run; of the next run of the same layer it is asked for again.
      if (cell?.layer === this.told.message.layer) {
        this.told = { message: { ...this.told.message, run: cell.run }, values: this.told.values };
        this.ask(cell.layer);
      } else {
        this.take(null);
      }
    }
    this.render();
  }

  take(message: Heads | null, buffers: DataView[] = []): void {
    this.told = message && message.layer === this.layer ? { message, values: readArray(message.array, buffers[0]!) } : null;
    this.render();
  }

  private render(): void {
    this.node.hidden = !this.told;
    setAttr(this.node, 'data-wb-heads', this.told ? String(this.told.message.layer) : undefined);
    if (!this.told || !this.plan) {
      this.list.replaceChildren();
      return;
    }
    const { message, values } = this.told;
    const [heads, size] = message.array.shape as [number, number];
    this.title.textContent = __('Attention of layer %1, tokens %2 to %3: rows attend, columns are attended to', message.layer, message.first, message.first + size - 1);
    const plan = this.plan;
    this.list.replaceChildren(
      ...Array.from({ length: heads }, (_, head) => {
        const request = toggleHead(plan, message.layer, head);
        const masked = request.type === 'remove';
        const press = button(masked ? __('Unmask %1', head) : __('Mask %1', head), 'mask-head', __('Replace the output of head %1 by zero, for all tokens', head), () =>
          this.send(toggleHead(plan, message.layer, head))
        );
        setAttr(press, 'aria-pressed', String(masked));
        const canvas = this.picture(values, head, size);
        setAttr(canvas, 'role', 'img');
        setAttr(canvas, 'aria-label', __('Attention pattern of head %1', head));
        return h('div', { class: 'wb-head-card', attrs: { 'data-wb-head': String(head), 'data-wb-masked': String(masked) } }, canvas, press);
      })
    );
  }

  private picture(values: ArrayLike<number>, head: number, size: number): HTMLCanvasElement {
    const canvas = h('canvas', { attrs: { width: String(size), height: String(size) } });
    const context = canvas.getContext('2d')!;
    const image = context.createImageData(size, size);
    for (let n = 0; n < size * size; n++) {
      image.data.set([...quantity(values[head * size * size + n]! / 255), 255], 4 * n);
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }
}
