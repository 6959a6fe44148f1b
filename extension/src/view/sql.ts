/** The query box: one SELECT over the store, its answer as a table and as a chart, as a file and as a link. */
import type { ControlRequest } from './channel';
import { button, choice, h, setAttr } from './dom';
import { Figure } from './figure';
import { save } from './files';
import type { Catalogue, Chart, MacroCard, Table } from './protocol';
import { digits } from './scale';
import { __, told } from './words';

export interface SqlActions {
  send: (request: ControlRequest) => number;
  /** An address that opens this query, where the host has one. */
  link: () => ((sql: string) => string) | null;
  fail: (problem: string, remedy: string) => void;
}

type Mark = 'bar' | 'line' | 'point' | 'grid';

const FIRST = 'FROM expert_load($run)';

export class SqlView {
  readonly node: HTMLElement;
  private readonly text: HTMLTextAreaElement;
  private readonly runButton: HTMLButtonElement;
  private readonly stop: HTMLButtonElement;
  private readonly error = h('div', { class: 'wb-sql-error', attrs: { role: 'alert' } });
  private readonly summary = h('span', { class: 'wb-quiet', attrs: { role: 'status' } });
  private readonly table = h('div', { class: 'wb-scroll wb-answer', attrs: { tabindex: '0', role: 'region', 'aria-label': __('Answer') } });
  private readonly chartBar: HTMLElement;
  private readonly mark: HTMLSelectElement;
  private readonly axes: Record<'x' | 'y' | 'colour', HTMLSelectElement>;
  private readonly figure = new Figure('query', __('Chart of the answer'), () => undefined);
  private readonly macros: HTMLSelectElement;
  private readonly about = h('div', { class: 'wb-macro' });
  private readonly share: HTMLButtonElement;
  private catalogue: Catalogue | null = null;
  private answered: Table | null = null;
  private runs: { run: string; base: string } | null = null;
  private asked = -1;

  constructor(private readonly actions: SqlActions) {
    this.text = h('textarea', {
      class: 'wb-input wb-sql',
      attrs: { rows: '5', spellcheck: 'false', 'aria-label': __('Query'), 'data-wb-query': '', placeholder: FIRST },
      on: {
        keydown: event => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            event.stopPropagation();
            this.run();
          }
        }
      }
    });
    this.text.value = FIRST;
    this.runButton = button(__('Ask'), 'ask', __('Run the query (Ctrl+Enter)'), () => this.run());
    this.runButton.classList.add('wb-primary');
    this.stop = button(__('Stop'), 'stop', __('Stop the query'), () => actions.send({ type: 'cancel', request: this.asked }));
    this.stop.hidden = true;
    this.macros = choice(__('Macros and tables'), [], name => this.explain(name));
    const file = h('input', {
      attrs: { type: 'file', accept: '.sql,text/plain', 'aria-label': __('Query file'), tabindex: '-1', hidden: true },
      on: {
        change: () =>
          void file.files?.[0]?.text().then(text => {
            this.text.value = text;
            file.value = '';
          })
      }
    });
    const share = button(__('Copy link'), 'link', __('Copy an address that opens this query here'), () => void this.copy(share));
    this.share = share;
    this.offerLink();
    const column = (name: string): HTMLSelectElement => choice(name, [], () => this.plot());
    this.axes = { x: column(__('across')), y: column(__('upwards')), colour: column(__('colour')) };
    this.mark = choice(
      __('Mark'),
      [
        ['bar', __('bars')],
        ['line', __('lines')],
        ['point', __('points')],
        ['grid', __('grid')]
      ],
      () => this.plot()
    );
    this.chartBar = h(
      'div',
      { class: 'wb-row', attrs: { hidden: true } },
      h('label', { class: 'wb-label' }, __('Draw'), ' ', this.mark),
      ...Object.entries({ x: __('across'), y: __('up'), colour: __('colour') }).map(([key, name]) =>
        h('label', { class: 'wb-label' }, name, ' ', this.axes[key as 'x'])
      ),
      button(__('Draw'), 'plot', __('Draw the answer as a chart'), () => this.plot())
    );
    const out = (format: 'csv' | 'parquet', label: string): HTMLButtonElement =>
      button(label, format, __('Save the whole answer as a %1 file', label), () => {
        actions.send({ type: 'export', format, sql: this.filled() });
      });
    this.figure.node.hidden = true;
    this.node = h(
      'section',
      { class: 'wb-card', attrs: { 'data-wb-view': 'sql' } },
      h('div', { class: 'wb-row' }, h('h3', { class: 'wb-title', text: __('Ask the store') }), this.macros),
      this.about,
      this.text,
      h(
        'div',
        { class: 'wb-row' },
        this.runButton,
        this.stop,
        this.summary,
        h('span', { class: 'wb-grow' }),
        share,
        button(__('Save'), 'save-sql', __('Save the query as a file'), () => save('query.sql', this.text.value, 'application/sql')),
        button(__('Load'), 'load-sql', __('Load a query from a file'), () => file.click()),
        file,
        out('csv', 'CSV'),
        out('parquet', 'Parquet')
      ),
      h('p', { class: 'wb-note', text: __('One SELECT, read-only. $run stands for the run in view and $base for its base.') }),
      this.error,
      this.chartBar,
      this.figure.node,
      this.table
    );
    this.fail('', '');
  }

  /** The view has come onto the screen. */
  opened(): void {
    if (!this.catalogue) {
      this.actions.send({ type: 'catalogue_of' });
    }
  }

  /** Offers a link where the host has addresses. */
  offerLink(): void {
    this.share.hidden = this.actions.link() === null;
  }

  /** Fills the box, and leaves it to the reader to run it. */
  fill(sql: string): void {
    this.text.value = sql;
    this.text.focus();
  }

  show(runs: { run: string; base: string } | null): void {
    this.runs = runs;
  }

  takeCatalogue(catalogue: Catalogue): void {
    this.catalogue = catalogue;
    const subjects = new Map<string, MacroCard[]>();
    catalogue.macros.forEach(macro => subjects.set(macro.subject, [...(subjects.get(macro.subject) ?? []), macro]));
    this.macros.replaceChildren(
      h('option', { text: __('%1 macros, %2 tables…', catalogue.macros.length, catalogue.tables.length), attrs: { value: '' } }),
      ...[...subjects].map(([subject, macros]) =>
        h('optgroup', { attrs: { label: subject } }, ...macros.map(({ name }) => h('option', { text: name, attrs: { value: name } })))
      ),
      h('optgroup', { attrs: { label: __('tables') } }, ...catalogue.tables.map(({ name }) => h('option', { text: name, attrs: { value: name } })))
    );
  }

  take(table: Table): void {
    this.answered = table;
    const count = table.rows.length;
    this.summary.textContent = __('%1 rows, %2 s', table.more ? `${count}+` : count, digits(table.seconds, 2));
    setAttr(this.table, 'data-wb-answer', String(count));
    const numeric = table.columns.map(({ type }) => /INT|FLOAT|DOUBLE|DECIMAL/.test(type) && !type.endsWith(']'));
    const cell = (value: string | number | boolean | null, n: number): HTMLElement =>
      h('td', {
        class: numeric[n] ? 'wb-number' : value === null ? 'wb-quiet' : '',
        text: value === null ? 'NULL' : typeof value === 'number' && !Number.isInteger(value) ? digits(value, 6) : String(value)
      });
    this.table.replaceChildren(
      h(
        'table',
        { class: 'wb-table' },
        h('caption', { class: 'wb-hidden', text: __('Answer') }),
        h('thead', {}, h('tr', {}, ...table.columns.map(({ name, type }) => h('th', { text: name, title: type, attrs: { scope: 'col' } })))),
        h('tbody', {}, ...table.rows.map(row => h('tr', {}, ...row.map(cell))))
      ),
      ...(table.more ? [h('p', { class: 'wb-note', text: __('Only the first %1 rows are shown; CSV and Parquet hold all of them.', count) })] : [])
    );
    this.offerChart(table, numeric);
  }

  takeChart(chart: Chart): void {
    this.figure.node.hidden = false;
    void this.figure.show(chart.spec as object | null, chart.note ? told(chart.note) : '');
  }

  /** The request with this number has been dealt with. */
  finished(seq: number): void {
    if (seq === this.asked) {
      this.stop.hidden = true;
      this.runButton.classList.remove('wb-working');
    }
  }

  fail(problem: string, remedy: string): void {
    this.error.hidden = !problem;
    setAttr(this.error, 'data-wb-error', problem || undefined);
    this.error.replaceChildren(h('strong', { text: problem }), ' ', h('span', { text: remedy }));
    if (problem) {
      this.summary.textContent = '';
    }
  }

  restyle(): void {
    this.figure.restyle();
  }

  private filled(): string {
    const { run, base } = this.runs ?? {};
    return this.text.value.replace(/\$run\b/g, run ?? '0').replace(/\$base\b/g, base ?? '0');
  }

  private run(): void {
    this.fail('', '');
    this.summary.textContent = __('asking…');
    this.stop.hidden = false;
    this.runButton.classList.add('wb-working');
    this.asked = this.actions.send({ type: 'query', sql: this.filled() });
  }

  private plot(): void {
    const sql = this.answered?.sql;
    if (sql) {
      const { x, y, colour } = this.axes;
      this.fail('', '');
      this.actions.send({ type: 'plot', sql, mark: this.mark.value as Mark, x: x.value, y: y.value, colour: colour.value || null });
    }
  }

  private offerChart(table: Table, numeric: boolean[]): void {
    const names = table.columns.map(({ name }) => name);
    this.chartBar.hidden = names.length < 2 || !table.rows.length;
    this.figure.node.hidden = true;
    const options = (none: boolean): HTMLOptionElement[] => [
      ...(none ? [h('option', { text: __('none'), attrs: { value: '' } })] : []),
      ...names.map(name => h('option', { text: name, attrs: { value: name } }))
    ];
    const { x, y, colour } = this.axes;
    x.replaceChildren(...options(false));
    y.replaceChildren(...options(false));
    colour.replaceChildren(...options(true));
    x.value = names[0] ?? '';
    y.value = names.filter((_, n) => numeric[n] && n > 0).pop() ?? names[1] ?? '';
    colour.value = names.length > 2 ? (names.find((name, n) => n > 0 && name !== y.value) ?? '') : '';
  }

  private explain(name: string): void {
    const macro = this.catalogue?.macros.find(one => one.name === name);
    const table = this.catalogue?.tables.find(one => one.name === name);
    const call = macro ? `FROM ${macro.name}(${example(macro.arguments)})` : table ? `FROM ${table.name} LIMIT 100` : '';
    this.about.replaceChildren(
      ...(macro
        ? [
            h('div', {}, h('code', { text: `${macro.name}(${macro.arguments})` }), ' ', macro.answers),
            h('pre', { class: 'wb-code', text: macro.formula }),
            h('div', { class: 'wb-quiet', text: macro.source })
          ]
        : table
          ? [h('div', {}, h('code', { text: table.name }), ': ', table.columns.map(column => `${column.name} ${column.type}`).join(', '))]
          : []),
      ...(call ? [button(__('Use'), 'use-macro', __('Put this into the query box'), () => this.fill(call))] : [])
    );
  }

  private async copy(share: HTMLButtonElement): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.actions.link()?.(this.text.value) ?? this.text.value);
      share.textContent = __('Copied');
      window.setTimeout(() => (share.textContent = __('Copy link')), 1500);
    } catch {
      this.actions.fail(__('The browser does not let this page write to the clipboard.'), __('Save the query as a file instead.'));
    }
  }
}

/** A call with what can be guessed: runs by their placeholders, defaults left out. */
export function example(signature: string): string {
  const known: Record<string, string> = { run: '$run', new_run: '$run', base: '$base', base_run: '$base', ids: '$run', others: '[$base]' };
  return signature
    .split(',')
    .map(part => part.trim())
    .filter(part => part && !part.includes(':='))
    .map(part => known[part] ?? part)
    .join(', ');
}
