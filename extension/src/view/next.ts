/** The next-token table: the likeliest tokens of the base run and of the edited run, side by side. */
import { choice, h, setAttr, shown } from './dom';
import type { Cell, NextTokens } from './protocol';
import { digits, signed } from './scale';
import { __ } from './words';

export class NextTable {
  readonly node: HTMLElement;
  private readonly body = h('tbody');
  private readonly summary = h('span', { class: 'wb-quiet' });
  private readonly empty = h('p', { class: 'wb-note', text: __('Run a prompt to see what the model would say next.') });
  private readonly table: HTMLTableElement;
  private readonly where: HTMLSelectElement;
  private follow = false;
  private selected: Cell | null = null;

  constructor(private readonly ask: (position: number | null) => void) {
    this.where = choice(
      __('Next token after'),
      [
        ['last', __('after the last token')],
        ['selected', __('after the selected token')]
      ],
      value => {
        this.follow = value === 'selected';
        this.ask(this.follow ? (this.selected?.position ?? null) : null);
      }
    );
    const head = (text: string, title: string): HTMLElement => h('th', { text, title, attrs: { scope: 'col' } });
    this.table = h(
      'table',
      { class: 'wb-table', attrs: { 'data-wb-next': '' } },
      h('caption', { class: 'wb-hidden', text: __('Probability of the next token') }),
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          head(__('token'), __('· is a space, ⏎ a line break')),
          head(__('base'), __('probability without the plan')),
          head(__('edited'), __('probability with the plan')),
          head(__('change'), __('edited minus base')),
          h('th', { attrs: { 'aria-hidden': 'true' } })
        )
      ),
      this.body
    );
    this.node = h(
      'section',
      { class: 'wb-card wb-next', attrs: { 'aria-label': __('Next token') } },
      h(
        'div',
        { class: 'wb-row' },
        h('h3', { class: 'wb-title', text: __('Next token') }),
        this.where,
        h('span', { class: 'wb-grow' }),
        this.summary
      ),
      this.empty,
      this.table
    );
    this.show(null);
  }

  /** The selected cell has moved: ask again if the table follows it. */
  moved(cell: Cell | null): void {
    const other = cell?.position !== this.selected?.position;
    this.selected = cell;
    if (this.follow && other) {
      this.ask(cell?.position ?? null);
    }
  }

  show(next: NextTokens | null): void {
    this.empty.hidden = next !== null;
    this.table.hidden = next === null;
    setAttr(this.table, 'data-wb-position', next ? String(next.position) : undefined);
    this.summary.textContent =
      next?.divergence === null || next?.divergence === undefined ? '' : __('KL %1 nats', digits(next.divergence));
    this.summary.title = __('Kullback-Leibler divergence of the edited distribution from the base one');
    const most = Math.max(1e-12, ...(next?.rows ?? []).flatMap(row => [row.base, row.edited ?? 0]));
    this.body.replaceChildren(
      ...(next?.rows ?? []).map(row => {
        const change = row.edited === null ? null : row.edited - row.base;
        const bar = (share: number, kind: string): HTMLElement => {
          const node = h('div', { class: `wb-bar ${kind}` });
          node.style.width = `${((100 * share) / most).toFixed(1)}%`;
          return node;
        };
        return h(
          'tr',
          { attrs: { 'data-wb-token': String(row.token) } },
          h('th', { attrs: { scope: 'row' } }, h('code', { class: 'wb-token', text: shown(row.text) })),
          h('td', { class: 'wb-number', text: digits(row.base) }),
          h('td', { class: 'wb-number', text: row.edited === null ? '–' : digits(row.edited) }),
          h('td', {
            class: `wb-number ${change === null || change === 0 ? 'wb-quiet' : change > 0 ? 'wb-up' : 'wb-down'}`,
            text: change === null ? '–' : signed(change)
          }),
          h(
            'td',
            { class: 'wb-bars', attrs: { 'aria-hidden': 'true' } },
            bar(row.base, 'wb-base'),
            row.edited === null ? null : bar(row.edited, 'wb-edited')
          )
        );
      })
    );
  }
}
