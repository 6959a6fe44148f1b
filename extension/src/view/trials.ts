/** Every exchange of one chosen expert of a cell, with what it would have done to the text that followed. */
import type { ControlRequest } from './channel';
import { button, h, setAttr, shown } from './dom';
import type { Inspection, Trial, Trials } from './protocol';
import { category, css, digits, signed } from './scale';
import { __ } from './words';

export class TrialList {
  readonly node: HTMLElement;
  private readonly title = h('span', { class: 'wb-quiet' });
  private readonly list = h('div', {
    class: 'wb-trial-list',
    attrs: { role: 'list', tabindex: '0', 'aria-label': __('Every exchange, best first') }
  });
  private trials: Trials | null = null;
  private drawn: Trials | null = null;

  constructor(private readonly send: (request: ControlRequest) => void) {
    const close = button('×', 'close', __('Close the list of exchanges'), () => this.take(null));
    setAttr(close, 'aria-label', __('Close the list of exchanges'));
    this.node = h(
      'div',
      { class: 'wb-trials', attrs: { hidden: true } },
      h('div', { class: 'wb-row' }, this.title, h('span', { class: 'wb-grow' }), close),
      this.list
    );
  }

  /** New results, or none. */
  take(trials: Trials | null): void {
    this.trials = trials;
    if (trials === null) {
      this.show(null);
    }
  }

  /** Shows the results if they are of the inspected cell. */
  show(cell: Inspection | null): void {
    const trials = this.trials;
    const fits = !!trials && !!cell && trials.layer === cell.layer && trials.position === cell.position;
    this.node.hidden = !fits;
    setAttr(this.node, 'data-wb-trials', fits ? `${trials.layer},${trials.position}` : undefined);
    if (!fits || this.drawn === trials) {
      return;
    }
    this.drawn = trials;
    this.title.textContent = trials.followed
      ? __('Change of log-probability of the %1 tokens that followed, in nats; in brackets of the next, “%2”', trials.followed, shown(trials.target))
      : __('Change of log-probability of the likeliest next token “%1”, in nats', shown(trials.target));
    const most = Math.max(1e-12, ...trials.rows.map(row => Math.abs(row.change ?? 0)));
    this.list.replaceChildren(...trials.rows.map(row => this.row(trials, row, most)));
  }

  private row(trials: Trials, row: Trial, most: number): HTMLElement {
    const change = row.change ?? 0;
    const bar = h('span', { class: `wb-swing ${change < 0 ? 'wb-loss' : 'wb-gain'}` });
    bar.style.width = `${((50 * Math.abs(change)) / most).toFixed(1)}%`;
    const swatch = (expert: number): HTMLElement => {
      const node = h('span', { class: 'wb-swatch' });
      node.style.background = css(category(expert));
      return node;
    };
    const amount = row.change === null ? '–' : signed(row.change, 3);
    const press = button('', 'exchange', __('Put this exchange into the plan, for this token alone'), () =>
      this.send({ type: 'exchange', layer: trials.layer, position: trials.position, removed: row.removed, expert: row.expert })
    );
    setAttr(press, 'aria-label', __('Exchange expert %1 for %2: %3 nats', row.removed, row.expert, amount));
    press.append(
      swatch(row.removed),
      h('span', { class: 'wb-number', text: `${row.removed} → ${row.expert}` }),
      swatch(row.expert),
      h('span', { class: 'wb-swing-track' }, bar),
      h('span', { class: `wb-number ${change > 0 ? 'wb-up' : change < 0 ? 'wb-down' : 'wb-quiet'}`, text: amount }),
      h('span', {
        class: 'wb-quiet',
        text: trials.followed ? `(${row.next_change === null ? '–' : signed(row.next_change, 2)})` : '',
        title: row.next_change === null ? '' : __('next token %1 nats', digits(row.next_change))
      })
    );
    return h('div', { attrs: { role: 'listitem', 'data-wb-trial': `${row.removed},${row.expert}` } }, press);
  }
}
