/** The map as a table, for screen readers and for everybody who wants the numbers; built only when it is opened. */
import { depthEvents } from './depth';
import { h, shown } from './dom';
import type { Colour, MapData } from './mapdata';
import { digits } from './scale';
import { __ } from './words';

/** More columns than this would make a page that no reader can walk; the map and its arrow keys reach all of them. */
const COLUMNS = 256;

export class MapTable {
  readonly node: HTMLDetailsElement;
  private readonly holder = h('div', { class: 'wb-map-table', attrs: { tabindex: '0', role: 'region', 'aria-label': __('Routing map as a table') } });
  private data: MapData | null = null;
  private colour: Colour = 'expert';

  constructor() {
    this.node = h('details', { class: 'wb-details' }, h('summary', { text: __('The map as a table') }), this.holder);
    this.node.addEventListener('toggle', () => this.render());
  }

  show(data: MapData | null, colour: Colour): void {
    this.data = data;
    this.colour = colour;
    this.render();
  }

  private render(): void {
    const data = this.data;
    if (!this.node.open || !data) {
      this.holder.replaceChildren();
      return;
    }
    const known = [...Array(data.tokens).keys()].filter(token => data.knows(token));
    const columns = known.slice(0, COLUMNS);
    const head = h('tr', {}, h('th', { text: __('layer'), attrs: { scope: 'col' } }));
    head.append(...columns.map(n => h('th', { attrs: { scope: 'col' } }, h('code', { text: shown(data.text(n) ?? '') }))));
    const rows = [...Array(data.layers).keys()].map(layer => {
      const row = h('tr', {}, h('th', { text: String(layer), attrs: { scope: 'row' } }));
      row.append(...columns.map(n => h('td', { class: 'wb-number', text: this.text(data, layer, n) })));
      return row;
    });
    this.holder.replaceChildren(
      h(
        'table',
        { class: 'wb-table' },
        h('caption', { class: 'wb-quiet', text: columns.length < data.tokens ? __('%1 of %2 tokens, from token %3 on', columns.length, data.tokens, columns[0] ?? 0) : __('All tokens') }),
        h('thead', {}, head),
        h('tbody', {}, ...rows)
      )
    );
  }

  private text(data: MapData, layer: number, token: number): string {
    const event = depthEvents()[data.depth(layer, token)];
    if (this.colour === 'depth') {
      return event?.name ?? '';
    }
    if (data.skipped(layer, token)) {
      return __('skipped');
    }
    const marks = `${data.wasEdited(layer, token) ? ` ${__('(edited)')}` : ''}${data.flipped(layer, token) ? ` ${__('(flipped)')}` : ''}`;
    if (this.colour === 'expert') {
      return data.chosen(layer, token).map(({ expert }) => expert).join(' ') + marks;
    }
    return this.colour === 'flip'
      ? data.flipped(layer, token) ? __('flipped') : __('same')
      : digits(data.value(this.colour, layer, token), 3) + marks;
  }
}
