/** Tabs after the pattern of the ARIA guide: arrows move, one panel is shown. */
import { h, setAttr } from './dom';

export interface Tab {
  key: string;
  label: string;
  title: string;
  panel: HTMLElement;
}

let made = 0;

export class Tabs {
  readonly node: HTMLElement;
  private readonly buttons: HTMLButtonElement[];
  current: string;

  constructor(
    name: string,
    private readonly tabs: Tab[],
    private readonly chosen: (key: string) => void
  ) {
    const group = ++made;
    this.current = tabs[0]!.key;
    this.buttons = tabs.map(({ key, label, title, panel }) => {
      panel.id = `wb-tab-${group}-${key}`;
      setAttr(panel, 'role', 'tabpanel');
      setAttr(panel, 'aria-label', label);
      return h('button', {
        class: 'wb-tab',
        text: label,
        title,
        attrs: { type: 'button', role: 'tab', 'aria-controls': panel.id, 'data-wb-tab': key },
        on: { click: () => this.choose(key), keydown: event => this.key(event) }
      });
    });
    this.node = h('div', { class: 'wb-tabs', attrs: { role: 'tablist', 'aria-label': name } }, ...this.buttons);
    this.render();
  }

  choose(key: string): void {
    const other = key !== this.current;
    this.current = key;
    this.render();
    if (other) {
      this.chosen(key);
    }
  }

  private render(): void {
    this.tabs.forEach(({ key, panel }, n) => {
      const on = key === this.current;
      panel.hidden = !on;
      setAttr(this.buttons[n]!, 'aria-selected', String(on));
      this.buttons[n]!.tabIndex = on ? 0 : -1;
    });
  }

  private key(event: KeyboardEvent): void {
    const at = this.tabs.findIndex(({ key }) => key === this.current);
    const moves: Record<string, number> = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: this.tabs.length - 1 };
    const to = moves[event.key];
    if (to !== undefined) {
      event.preventDefault();
      event.stopPropagation();
      const next = (to + this.tabs.length) % this.tabs.length;
      this.choose(this.tabs[next]!.key);
      this.buttons[next]!.focus();
    }
  }
}
