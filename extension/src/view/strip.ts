/** The tokens of the text as a strip: all of them, or those around the selected one where they are many. */
import { h, setAttr, shown } from './dom';
import type { MapData } from './mapdata';
import { walk } from './walk';
import { __ } from './words';

const MOST = 400;

export class TokenStrip {
  readonly node: HTMLElement;
  private first = 0;
  private data: MapData | null = null;
  private at = -1;
  private tokens = 0;

  constructor(private readonly select: (position: number) => void) {
    this.node = h('div', {
      class: 'wb-strip',
      attrs: { 'aria-label': __('Tokens; arrow keys select'), role: 'group', tabindex: '0' },
      on: { keydown: event => walk(event, this.at, 0, this.tokens - 1, select) }
    });
  }

  show(data: MapData | null, position: number | undefined): void {
    if (data === this.data && position === this.at && data?.whole) {
      return;
    }
    this.data = data;
    const tokens = data?.tokens ?? 0;
    const at = position ?? 0;
    this.at = at;
    this.tokens = tokens;
    if (tokens <= MOST) {
      this.first = 0;
    } else if (at < this.first || at >= this.first + MOST || this.first + MOST > tokens) {
      this.first = Math.max(0, Math.min(tokens - MOST, at - MOST / 2));
    }
    // Of a large text only what has been sent is shown.
    const known: number[] = [];
    for (let token = this.first; token < Math.min(tokens, this.first + MOST); token++) {
      if (data!.knows(token)) {
        known.push(token);
      }
    }
    const count = known.length;
    while (this.node.childElementCount > count) {
      this.node.lastElementChild!.remove();
    }
    for (let n = 0; n < count; n++) {
      const token = known[n]!;
      const text = data!.text(token) ?? '';
      let node = this.node.children[n] as HTMLElement | undefined;
      if (!node) {
        node = h('span', { class: 'wb-chip-token', on: { click: event => this.select(Number((event.currentTarget as Element).getAttribute('data-token'))) } });
        this.node.append(node);
      }
      if (node.getAttribute('data-text') !== text || node.getAttribute('data-token') !== String(token)) {
        node.textContent = text.replace(/\r?\n/g, '⏎').replace(/\t/g, '⇥') || '∅';
        setAttr(node, 'data-text', text);
        setAttr(node, 'data-token', String(token));
        node.title = __('token %1 “%2”', token, shown(text));
      }
      node.classList.toggle('wb-on', token === position);
    }
  }
}
