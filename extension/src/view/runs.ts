/** The runs of the store: find one, look at it again, compare two. */
import type { ControlRequest } from './channel';
import { button, h, setAttr } from './dom';
import type { RunRow, Runs } from './protocol';
import { digits } from './scale';
import { __, told } from './words';

export interface RunsActions {
  send: (request: ControlRequest) => number;
  /** Shows the map. */
  look: () => void;
  compare: (base: string, run: string) => void;
}

export class RunList {
  readonly node: HTMLElement;
  private readonly search: HTMLInputElement;
  private readonly body = h('tbody');
  private readonly empty = h('p', { class: 'wb-note' });
  private readonly table: HTMLTableElement;
  private readonly more: HTMLButtonElement;
  private readonly both: HTMLButtonElement;
  private readonly chosen: string[] = [];
  private rows: RunRow[] = [];
  private inView: string[] = [];
  private timer = 0;

  constructor(private readonly actions: RunsActions) {
    this.search = h('input', {
      class: 'wb-input wb-grow',
      attrs: { type: 'search', 'aria-label': __('Find runs'), placeholder: __('find by prompt, model or label') },
      on: {
        input: () => {
          window.clearTimeout(this.timer);
          this.timer = window.setTimeout(() => this.ask(), 200);
        }
      }
    });
    this.both = button(__('Compare'), 'compare', __('Compare the two ticked runs: the older is the base'), () => {
      const [base, run] = [...this.chosen].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
      if (base && run) {
        actions.compare(base, run);
      }
    });
    this.more = button(__('Older runs'), 'more', __('List more'), () => this.ask(this.rows.at(-1)?.id));
    const head = (text: string, title = ''): HTMLElement => h('th', { text, title, attrs: { scope: 'col' } });
    this.table = h(
      'table',
      { class: 'wb-table wb-runs', attrs: { 'data-wb-runs': '' } },
      h('caption', { class: 'wb-hidden', text: __('Recorded runs, newest first') }),
      h(
        'thead',
        {},
        h('tr', {}, head(__('compare')), head(__('text, plan and labels')), head(__('tokens')), head(__('loss'), __('mean negative log-likelihood of its tokens, nats')), head(__('when')), head(__('look')))
      ),
      this.body
    );
    this.node = h(
      'section',
      { class: 'wb-card', attrs: { 'data-wb-view': 'runs' } },
      h('div', { class: 'wb-row' }, h('h3', { class: 'wb-title', text: __('Runs in the store') }), this.search, button(__('Refresh'), 'refresh', __('List again'), () => this.ask()), this.both),
      this.empty,
      h('div', { class: 'wb-scroll', attrs: { tabindex: '0', role: 'region', 'aria-label': __('Runs in the store') } }, this.table),
      this.more
    );
    this.render();
  }

  /** Lists the runs that hold a text. */
  find(text: string): void {
    this.search.value = text;
    this.ask();
  }

  ask(before: string | undefined = undefined): void {
    this.actions.send({ type: 'runs_of', text: this.search.value, before: before ?? null });
  }

  take(message: Runs): void {
    if (message.text !== this.search.value) {
      return; // an answer to what was typed before
    }
    this.rows = message.before === null ? message.rows : [...this.rows, ...message.rows];
    this.more.hidden = !message.more;
    this.render();
  }

  /** Which runs the map shows. */
  mark(inView: string[]): void {
    if (inView.join() !== this.inView.join()) {
      this.inView = inView;
      this.render();
    }
  }

  private render(): void {
    this.empty.textContent = this.search.value
      ? __('No run matches. Clear the field to see all of them.')
      : __('No run has been recorded yet. Run a prompt, or call bench.run(...) in a notebook.');
    this.empty.hidden = this.rows.length > 0;
    this.table.hidden = this.rows.length === 0;
    this.body.replaceChildren(...this.rows.map(row => this.row(row)));
    this.both.disabled = this.chosen.length !== 2;
  }

  /** One click that puts the routes of a run into the plan, for all layers and tokens. */
  private replay(row: RunRow): HTMLButtonElement {
    const node = button(__('Replay'), 'replay-run', __('Put this run’s routes into the plan: the prompt in view is routed as it was'), () => {
      this.actions.send({ type: 'add', edit: { kind: 'reroute.replay', run: row.id } });
      this.actions.look();
    });
    setAttr(node, 'aria-label', __('Replay the routes of run %1', row.id));
    return node;
  }

  private row(row: RunRow): HTMLElement {
    const box = h('input', { attrs: { type: 'checkbox', 'aria-label': __('Compare run %1', row.id) } });
    box.checked = this.chosen.includes(row.id);
    box.addEventListener('change', () => {
      const at = this.chosen.indexOf(row.id);
      if (at >= 0) {
        this.chosen.splice(at, 1);
      }
      if (box.checked) {
        this.chosen.push(row.id);
        if (this.chosen.length > 2) {
          this.chosen.shift();
          this.render();
        }
      }
      this.both.disabled = this.chosen.length !== 2;
    });
    const show = (text: string, action: string, title: string, plan: boolean, base: string | null): HTMLButtonElement => {
      const node = button(text, action, title, () => {
        this.actions.send({ type: 'show', run: row.id, base, plan });
        this.actions.look();
      });
      setAttr(node, 'aria-label', `${title}: ${row.id}`);
      return node;
    };
    const plan = row.edits.length ? row.edits.map(told).join('; ') : row.plan;
    const labels = Object.entries(row.labels).map(([key, value]) => `${key}: ${value}`);
    return h(
      'tr',
      { attrs: { 'data-wb-run-row': row.id, 'aria-current': this.inView.includes(row.id) ? 'true' : undefined } },
      h('td', {}, box),
      h(
        'th',
        { class: 'wb-run-words', attrs: { scope: 'row' }, title: `${row.model} · ${row.kind} · ${row.id}` },
        h('span', { class: 'wb-clip', text: row.text || '∅' }),
        plan || labels.length ? h('span', { class: 'wb-clip wb-quiet', text: [plan, ...labels].filter(Boolean).join(' · '), title: [plan, ...labels].join('\n') }) : null
      ),
      h('td', { class: 'wb-number', text: String(row.tokens) }),
      h('td', { class: 'wb-number', text: row.loss === null ? '–' : digits(row.loss, 4) }),
      h('td', { class: 'wb-number wb-nowrap', text: row.started.slice(5, 16) || '–', title: row.started }),
      h(
        'td',
        { class: 'wb-run-buttons' },
        show(__('Open'), 'show', __('Show this run on the map'), false, null),
        row.plan ? show(__('With plan'), 'show-plan', __('Show it and take up its plan'), true, null) : null,
        row.parent ? show(__('On parent'), 'show-parent', __('Show it against the run it came from'), false, row.parent) : null,
        this.replay(row)
      )
    );
  }
}
