/** One chart in the page: a specification from the kernel, drawn by Vega in the theme's colours, with a picture to save. */
import { button, h } from './dom';
import { save } from './files';
import type { Drawing, Theme } from './vega';
import { __ } from './words';

type Vega = typeof import('./vega');
export type LoadVega = () => Promise<Vega>;

let loader: LoadVega | null = null;

/** How this host comes by Vega. */
export function useVega(load: LoadVega): void {
  loader = load;
}

export class Figure {
  readonly node: HTMLElement;
  private readonly holder = h('div', { class: 'wb-figure-holder' });
  private readonly note = h('p', { class: 'wb-note' });
  private readonly picture: HTMLButtonElement;
  private drawing: Drawing | null = null;
  private spec: object | null = null;
  private turn = 0;
  private readonly parameters = new Map<string, unknown>();

  constructor(
    name: string,
    title: string,
    private readonly pick: (datum: Record<string, unknown>) => void
  ) {
    this.picture = button(__('SVG'), 'figure', __('Save this chart as an SVG picture'), () => {
      void this.drawing?.svg().then(svg => save(`${name}.svg`, svg, 'image/svg+xml'));
    });
    this.node = h('figure', { class: 'wb-figure', attrs: { 'data-wb-chart': name, 'aria-label': title } }, this.holder, this.note, this.picture);
    this.say(__('Nothing to draw yet.'));
  }

  /** Draws a specification, or says why there is none. */
  async show(spec: object | null, note = ''): Promise<void> {
    const turn = ++this.turn;
    this.spec = spec;
    if (!spec) {
      this.clear();
      this.say(note);
      return;
    }
    try {
      if (!loader) {
        throw new Error(__('this host draws no charts'));
      }
      const vega = await loader();
      if (turn !== this.turn) {
        return;
      }
      this.clear();
      this.say('');
      const drawing = await vega.draw(this.holder, spec, themeOf(this.node), this.pick);
      if (turn !== this.turn) {
        drawing.dispose();
        return;
      }
      this.drawing = drawing;
      this.picture.hidden = false;
      this.node.dataset['wbDrawn'] = 'true';
      this.parameters.forEach((value, name) => drawing.set(name, value));
    } catch (error) {
      this.say(__('The chart could not be drawn: %1.', (error as Error).message));
    }
  }

  set(name: string, value: unknown): void {
    this.parameters.set(name, value);
    this.drawing?.set(name, value);
  }

  restyle(): void {
    if (this.spec && this.drawing) {
      void this.show(this.spec);
    }
  }

  private say(text: string): void {
    this.note.textContent = text;
    this.note.hidden = text === '';
  }

  private clear(): void {
    this.drawing?.dispose();
    this.drawing = null;
    this.picture.hidden = true;
    delete this.node.dataset['wbDrawn'];
    this.holder.replaceChildren();
  }
}

function themeOf(node: HTMLElement): Theme {
  const style = getComputedStyle(node);
  const colour = (name: string, other: string): string => style.getPropertyValue(name).trim() || other;
  return {
    ink: colour('--wb-ink-1', '#222'),
    faint: colour('--wb-ink-2', '#666'),
    line: colour('--wb-line-strong', '#bbb'),
    font: style.fontFamily
  };
}
