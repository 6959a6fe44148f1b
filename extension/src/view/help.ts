/** A short tour: one part of the panel after the other, each marked while it is explained. */
import { button, h, setAttr } from './dom';
import { __ } from './words';

interface Step {
  title: string;
  text: string;
  /** The part that is meant. */
  at: string;
}

const steps = (): Step[] => [
  { title: __('Prompt'), at: '.wb-prompt', text: __('Type text and press Enter. The model reads it once without a plan (base) and, if there is one, once with it (edited). Both are recorded in the store.') },
  { title: __('Routing map'), at: '.wb-map-card', text: __('Tokens run across, layers down; the colour is the expert that got the greatest weight. Arrows move, Enter inspects, + and − zoom, B flips between base and edited. Drag, or Shift and arrows, marks a box; a click on a layer’s or token’s label marks all of it.') },
  { title: __('Inspector'), at: '.wb-inspector', text: __('Every expert of the selected cell with its score. Ban, force or boost one: it acts at once. “Act on” says how far; the number of an expert tells what else it gets.') },
  { title: __('Plan'), at: '.wb-plan', text: __('What you change is a plan: switch edits off, reorder, undo, keep it under a name, copy it as Python. “Add edit” has a form for every kind of edit.') },
  { title: __('Live'), at: '.wb-live', text: __('Generate goes on from the prompt token by token. Pause, step, rewind or branch; an edit acts at the next token.') },
  { title: __('Other views'), at: '.wb-tabs', text: __('Charts of the run, the difference of two runs, all runs of the store, and SQL over them. A page of the runs in view opens without a kernel.') }
];

export class Help {
  readonly node: HTMLElement;
  private readonly title = h('strong');
  private readonly count = h('span', { class: 'wb-quiet' });
  private readonly text = h('p');
  private readonly back: HTMLButtonElement;
  private readonly next: HTMLButtonElement;
  private at = -1;
  private marked: Element | null = null;
  private before: HTMLElement | null = null;

  constructor(private readonly root: () => HTMLElement) {
    this.back = button(__('Back'), 'help-back', __('The part before'), () => this.go(this.at - 1));
    this.next = button(__('Next'), 'help-next', __('The next part'), () => this.go(this.at + 1));
    this.next.classList.add('wb-primary');
    this.node = h(
      'div',
      {
        class: 'wb-help',
        attrs: { role: 'dialog', 'aria-label': __('Help'), hidden: true },
        on: {
          keydown: event => {
            if (event.key === 'Escape') {
              event.stopPropagation();
              this.close();
            }
          }
        }
      },
      h('div', { class: 'wb-row' }, this.title, this.count),
      this.text,
      h('div', { class: 'wb-row' }, this.back, this.next, h('span', { class: 'wb-grow' }), button(__('Close'), 'help-close', __('Close the help (Escape)'), () => this.close()))
    );
  }

  open(): void {
    this.before = document.activeElement as HTMLElement | null;
    this.go(0);
  }

  private close(): void {
    this.marked?.classList.remove('wb-explained');
    this.node.hidden = true;
    this.at = -1;
    this.before?.focus();
  }

  private go(to: number): void {
    const all = steps();
    const step = all[to];
    if (!step) {
      this.close();
      return;
    }
    this.at = to;
    this.marked?.classList.remove('wb-explained');
    this.marked = this.root().querySelector(step.at);
    this.marked?.classList.add('wb-explained');
    this.marked?.scrollIntoView({ block: 'nearest' });
    this.title.textContent = step.title;
    this.count.textContent = __('%1 of %2', to + 1, all.length);
    this.text.textContent = step.text;
    this.back.disabled = to === 0;
    this.next.textContent = to + 1 < all.length ? __('Next') : __('Done');
    setAttr(this.node, 'data-wb-help', String(to));
    this.node.hidden = false;
    this.next.focus();
  }
}
