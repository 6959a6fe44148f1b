/** The experiments of the store while they run: how far each is, and what its plans have changed so far. */
import type { ControlRequest } from './channel';
import { button, h } from './dom';
import type { Experiment, Experiments, PlanProgress } from './protocol';
import { digits, signed } from './scale';
import { __ } from './words';

/** Milliseconds until the store is asked again: while an experiment runs, and while none does. */
const SOON = 700;
const LATER = 3000;

export interface ExperimentsActions {
  send: (request: ControlRequest) => number;
  /** Lists the runs whose labels hold a text. */
  runs: (text: string) => void;
}

export class ExperimentsView {
  readonly node: HTMLElement;
  private readonly list = h('div');
  private readonly empty = h('p', { class: 'wb-note', text: __('No experiment is in this store. In a notebook, workbench.experiments.sweep(bench, prompts, plans) makes one; it is shown here while it runs.') });
  private timer = 0;
  private open = false;

  constructor(private readonly actions: ExperimentsActions) {
    this.node = h(
      'section',
      { class: 'wb-card', attrs: { 'data-wb-view': 'experiments' } },
      h('h3', { class: 'wb-title', text: __('Experiments') }),
      this.empty,
      this.list
    );
  }

  /** Whether the view is on the screen: the store is asked again only as long as it is. */
  opened(open: boolean): void {
    const begins = open && !this.open;
    this.open = open;
    window.clearTimeout(this.timer);
    if (begins) {
      this.ask();
    }
  }

  take(message: Experiments): void {
    this.empty.hidden = message.rows.length > 0;
    this.list.replaceChildren(...message.rows.map(row => this.row(row)));
    window.clearTimeout(this.timer);
    if (this.open) {
      this.timer = window.setTimeout(() => this.ask(), message.rows.some(row => row.running) ? SOON : LATER);
    }
  }

  private ask(): void {
    if (this.open) {
      this.actions.send({ type: 'experiments_of' });
    }
  }

  private row(row: Experiment): HTMLElement {
    const whole = row.expected === null ? '' : __(' of %1', row.expected);
    const state = row.running ? __('running') : row.expected === null ? '' : row.runs < row.expected ? __('stopped') : __('complete');
    const bar = h('progress', { class: 'wb-progress', attrs: { max: String(row.expected ?? 1), value: String(row.expected === null ? 0 : row.runs), 'aria-label': __('Runs of %1', row.name) } });
    bar.hidden = row.expected === null;
    const head = [__('plan'), __('runs'), __('loss'), __('change of loss'), ''];
    const most = Math.max(1e-12, ...row.plans.map(plan => Math.abs(plan.change ?? 0)));
    return h(
      'article',
      { class: 'wb-experiment', attrs: { 'data-wb-experiment': row.id, 'data-wb-done': String(row.runs), 'data-wb-running': String(row.running), 'aria-label': row.name } },
      h(
        'div',
        { class: 'wb-row' },
        h('strong', { text: row.name || __('unnamed') }),
        bar,
        h('span', { class: 'wb-number', text: __('%1%2 runs', row.runs, whole) }),
        h('span', { class: 'wb-chip', text: state }),
        h('span', { class: 'wb-quiet', text: row.created, title: row.id }),
        h('span', { class: 'wb-grow' }),
        button(__('Runs'), 'experiment-runs', __('List the runs of this experiment'), () => this.actions.runs(row.id))
      ),
      h(
        'table',
        { class: 'wb-table' },
        h('thead', {}, h('tr', {}, ...head.map(text => (text ? h('th', { text, attrs: { scope: 'col' } }) : h('td'))))),
        h('tbody', {}, ...row.plans.map(plan => this.plan(plan, most)))
      )
    );
  }

  private plan(plan: PlanProgress, most: number): HTMLElement {
    const change = plan.change ?? 0;
    const bar = h('span', { class: `wb-swing ${change > 0 ? 'wb-loss' : 'wb-gain'}` });
    // A change to a lower loss goes to the right, as everywhere a gain does.
    bar.style.width = `${((50 * Math.abs(change)) / most).toFixed(1)}%`;
    const track = h('span', { class: 'wb-swing-track wb-block', attrs: { 'aria-hidden': 'true' } }, bar);
    return h(
      'tr',
      {},
      h('th', { attrs: { scope: 'row' } }, plan.control ? __('%1, random controls', plan.plan) : plan.plan || '–'),
      h('td', { class: 'wb-number', text: String(plan.runs) }),
      h('td', { class: 'wb-number', text: plan.loss === null ? '–' : digits(plan.loss) }),
      h('td', { class: 'wb-number', text: plan.change === null ? '–' : signed(plan.change, 3), title: __('mean over the prompts, against no plan; negative is better') }),
      h('td', { class: 'wb-bars' }, plan.change === null ? null : track)
    );
  }
}
