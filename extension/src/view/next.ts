/** The next-token table: the likeliest tokens of the base run and of the edited run, side by side. */
import { choice, h, setAttr, setText, shown } from './dom';
import type { Cell, NextRow, NextTokens } from './protocol';
import { digits, signed } from './scale';
import { __ } from './words';

/** One candidate on the page. */
interface Row {
  node: HTMLElement;
  token: HTMLElement;
  base: HTMLElement;
  edited: HTMLElement;
  change: HTMLElement;
  bars: [HTMLElement, HTMLElement];
}

export class NextTable {
  readonly node: HTMLElement;
  private readonly body = h('tbody');
  private readonly rows: Row[] = [];
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
    setText(this.summary, next?.divergence === null || next?.divergence === undefined ? '' : __('KL %1 nats', digits(next.divergence)));
    this.summary.title = __('Kullback-Leibler divergence of the edited distribution from the base one');
    const most = Math.max(1e-12, ...(next?.rows ?? []).flatMap(row => [row.base, row.edited ?? 0]));
    const rows = next?.rows ?? [];
    while (this.rows.length > rows.length) {
      this.rows.pop()!.node.remove();
    }
    rows.forEach((row, n) => this.fill(this.rows[n] ?? this.makeRow(), row, most));
  }

  private makeRow(): Row {
    const number = (): HTMLElement => h('td', { class: 'wb-number' });
    const row: Row = {
      node: h('tr'),
      token: h('code', { class: 'wb-token' }),
      base: number(),
      edited: number(),
      change: number(),
      bars: [h('div', { class: 'wb-bar wb-base' }), h('div', { class: 'wb-bar wb-edited' })]
    };
    row.node.append(
      h('th', { attrs: { scope: 'row' } }, row.token),
      row.base,
      row.edited,
      row.change,
      h('td', { class: 'wb-bars', attrs: { 'aria-hidden': 'true' } }, ...row.bars)
    );
    this.rows.push(row);
    this.body.append(row.node);
    return row;
  }

  private fill(row: Row, data: NextRow, most: number): void {
    const change = data.edited === null ? null : data.edited - data.base;
    setAttr(row.node, 'data-wb-token', String(data.token));
    setText(row.token, shown(data.text));
    setText(row.base, digits(data.base));
    setText(row.edited, data.edited === null ? '–' : digits(data.edited));
    setText(row.change, change === null ? '–' : signed(change));
    setAttr(row.change, 'class', `wb-number ${change === null || change === 0 ? 'wb-quiet' : change > 0 ? 'wb-up' : 'wb-down'}`);
    [data.base, data.edited].forEach((share, n) => {
      row.bars[n]!.hidden = share === null;
      row.bars[n]!.style.width = `${((100 * (share ?? 0)) / most).toFixed(1)}%`;
    });
  }
}
