/** The inspector: every expert of one cell with its score, and the buttons that re-route. */
import type { ComputeRequest, ControlRequest } from './channel';
import { button, h, setAttr, shown } from './dom';
import { type Scope, type Target, boost, find, toggle, toggleSkip } from './edits';
import type { BenchFacts, ExpertRow, Inspection, PlanCard, Trials } from './protocol';
import { category, css, digits, signed } from './scale';
import { TrialList } from './trials';
import { __ } from './words';

type Order = 'score' | 'id';

interface Row {
  node: HTMLElement;
  bar: HTMLElement;
  score: HTMLElement;
  weight: HTMLElement;
  badge: HTMLElement;
  ban: HTMLButtonElement;
  force: HTMLButtonElement;
  boost: HTMLButtonElement;
}

export class Inspector {
  readonly node: HTMLElement;
  private readonly title = h('h3', { class: 'wb-title' });
  private readonly facts = h('dl', { class: 'wb-facts' });
  private readonly note = h('p', { class: 'wb-note' });
  private readonly list = h('div', { class: 'wb-experts', attrs: { role: 'list', 'aria-label': __('Experts') } });
  private readonly tools: HTMLElement;
  private readonly skip: HTMLButtonElement;
  private readonly attempt: HTMLButtonElement;
  private readonly trials: TrialList;
  private readonly scopes: HTMLSelectElement;
  private readonly orders: HTMLSelectElement;
  private readonly rows = new Map<number, Row>();
  private scope: Scope = 'all';
  private order: Order = 'score';
  private cell: Inspection | null = null;
  private plan: PlanCard | null = null;
  private bench: BenchFacts | null = null;

  constructor(
    private readonly send: (request: ControlRequest) => void,
    compute: (request: ComputeRequest) => void
  ) {
    this.trials = new TrialList(send);
    this.attempt = button(
      __('Try every expert'),
      'try',
      __('What every other expert here would have done to the text that followed'),
      () => {
        if (this.cell) {
          compute({ type: 'try', layer: this.cell.layer, position: this.cell.position });
        }
      }
    );
    this.scopes = choice(
      __('Clicks act on'),
      [
        ['all', __('all tokens')],
        ['token', __('this token')]
      ],
      value => {
        this.scope = value as Scope;
        this.render();
      }
    );
    this.orders = choice(
      __('Order'),
      [
        ['score', __('by score')],
        ['id', __('by number')]
      ],
      value => {
        this.order = value as Order;
        this.render();
      }
    );
    this.skip = button(__('Skip block'), 'skip', '', () => {
      if (this.cell && this.plan) {
        this.send(toggleSkip(this.plan, this.cell.layer));
      }
    });
    this.tools = h(
      'div',
      { class: 'wb-tools' },
      h('label', { class: 'wb-label' }, __('Act on'), ' ', this.scopes),
      h('label', { class: 'wb-label' }, __('Sort'), ' ', this.orders),
      this.attempt
    );
    this.node = h(
      'section',
      { class: 'wb-card wb-inspector', attrs: { 'aria-label': __('Cell inspector') } },
      h('div', { class: 'wb-row' }, this.title, h('span', { class: 'wb-grow' }), this.skip),
      this.facts,
      this.tools,
      this.note,
      this.trials.node,
      this.list
    );
    this.render();
  }

  show(cell: Inspection | null, plan: PlanCard | null, bench: BenchFacts | null): void {
    this.cell = cell;
    this.plan = plan;
    this.bench = bench;
    this.render();
  }

  /** What a trial of every expert has found. */
  take(trials: Trials | null): void {
    this.trials.take(trials);
    this.trials.show(this.cell);
  }

  private get target(): Target {
    return { layer: this.cell!.layer, position: this.cell!.position, scope: this.scope };
  }

  private render(): void {
    const cell = this.cell;
    const plan = this.plan;
    setAttr(this.node, 'data-wb-cell', cell ? `${cell.layer},${cell.position}` : undefined);
    this.facts.replaceChildren();
    this.trials.show(cell);
    this.tools.hidden = !cell?.experts.length;
    this.skip.hidden = !cell;
    if (!cell || !plan) {
      this.title.textContent = __('Inspector');
      this.note.textContent = __('Run a prompt, then click a cell of the map to see how its token was routed.');
      this.list.replaceChildren();
      this.rows.clear();
      return;
    }
    this.title.replaceChildren(
      __('Layer %1', cell.layer),
      h('span', { class: 'wb-quiet', text: ' · ' }),
      __('token %1', cell.position),
      ' ',
      h('code', { class: 'wb-token', text: shown(cell.text) })
    );
    this.fact(__('margin'), cell.margin, __('k-th best score minus the next: how close the choice was'));
    this.fact(__('entropy'), cell.entropy, __('of the routing distribution, in nats'));
    this.fact(__('influence'), cell.facts['influence'], __('1 − cosine of what enters and leaves the block'));
    if (!cell.experts.length) {
      this.fact(__('attention'), cell.facts['attn_norm'], __('norm of what attention adds, relative to the stream'));
      this.fact(__('MLP'), cell.facts['mlp_norm'], __('norm of what the MLP adds, relative to the stream'));
      this.fact(__('zeros'), cell.facts['zero_share'], __('share of activations that are exactly zero'));
    }
    const refusal = this.bench?.refused[String(cell.layer)];
    this.attempt.disabled = refusal !== undefined || !cell.experts.some(row => row.chosen);
    this.renderSkip(cell, plan);
    this.renderNote(cell, refusal);
    this.renderRows(cell, plan, refusal !== undefined);
  }

  private fact(name: string, value: number | null | undefined, meaning: string): void {
    if (value !== null && value !== undefined) {
      this.facts.append(
        h('div', { title: meaning }, h('dt', { text: name }), h('dd', { text: digits(value) }))
      );
    }
  }

  private renderSkip(cell: Inspection, plan: PlanCard): void {
    const skipped = find(plan, ['skip.block'], { ...this.target, scope: 'all' }) >= 0;
    this.skip.textContent = skipped ? __('Unskip block') : __('Skip block');
    this.skip.title = skipped
      ? __('Run block %1 again', cell.layer)
      : __('Leave block %1 out for all tokens', cell.layer);
    setAttr(this.skip, 'aria-pressed', String(skipped));
  }

  private renderNote(cell: Inspection, refusal: string | undefined): void {
    if (cell.skipped) {
      this.note.textContent = __('This block is skipped: nothing in it runs.');
    } else if (refusal !== undefined) {
      this.note.textContent = __('This layer can be read but not re-routed: %1', refusal);
    } else if (!cell.experts.length) {
      this.note.textContent = __('This layer has no router: every token passes through the same MLP.');
    } else if (this.scope === 'all') {
      this.note.textContent = __('Ban and force hold in layer %1 for all tokens. %2 of %3 experts are chosen per token.', cell.layer, cell.choices, cell.experts.length);
    } else {
      this.note.textContent = __('Ban and force hold in layer %1 for token %2 alone. %3 of %4 experts are chosen per token.', cell.layer, cell.position, cell.choices, cell.experts.length);
    }
  }

  private renderRows(cell: Inspection, plan: PlanCard, refused: boolean): void {
    // Sorted by the base run's scores, so that rows stay under the pointer while experts are banned one by one.
    const rank = (row: ExpertRow): number => row.base ?? row.score ?? -Infinity;
    const sorted = [...cell.experts].sort((a, b) =>
      this.order === 'score' ? rank(b) - rank(a) || a.expert - b.expert : a.expert - b.expert
    );
    const scores = cell.experts.map(row => row.score ?? row.base).filter(score => score !== null);
    const top = Math.max(...scores);
    const low = Math.min(0, ...scores);
    for (const expert of this.rows.keys()) {
      if (expert >= sorted.length) {
        this.rows.get(expert)!.node.remove();
        this.rows.delete(expert);
      }
    }
    sorted.forEach((data, place) => {
      const row = this.rows.get(data.expert) ?? this.makeRow(data.expert);
      this.fill(row, data, plan, low, top, refused);
      if (this.list.children[place] !== row.node) {
        this.list.insertBefore(row.node, this.list.children[place] ?? null);
      }
    });
  }

  private makeRow(expert: number): Row {
    const bar = h('div', { class: 'wb-bar' });
    const score = h('span', { class: 'wb-number' });
    const weight = h('span', { class: 'wb-number wb-weight' });
    const badge = h('span', { class: 'wb-badge' });
    const press = (kind: 'reroute.ban' | 'reroute.force') => () => {
      if (this.plan && this.cell) {
        this.send(toggle(this.plan, kind, this.target, expert));
      }
    };
    const ban = button(__('Ban'), 'ban', '', press('reroute.ban'));
    const force = button(__('Force'), 'force', '', press('reroute.force'));
    const raise = button('+1', 'boost', '', () => undefined);
    raise.addEventListener('click', event => {
      if (this.plan && this.cell) {
        this.send(boost(this.plan, this.target, expert, event.shiftKey ? -1 : 1));
      }
    });
    const swatch = h('span', { class: 'wb-swatch' });
    swatch.style.background = css(category(expert));
    const node = h(
      'div',
      { class: 'wb-expert', attrs: { role: 'listitem', 'data-wb-expert': String(expert) } },
      swatch,
      h('span', { class: 'wb-expert-id', text: String(expert) }),
      h('div', { class: 'wb-track' }, bar, score),
      weight,
      badge,
      ban,
      force,
      raise
    );
    const row = { node, bar, score, weight, badge, ban, force, boost: raise };
    this.rows.set(expert, row);
    return row;
  }

  private fill(row: Row, data: ExpertRow, plan: PlanCard, low: number, top: number, refused: boolean): void {
    const score = data.score ?? data.base;
    const share = score === null || top === low ? 0 : (score - low) / (top - low);
    row.bar.style.width = `${(100 * share).toFixed(1)}%`;
    row.score.textContent = score === null ? '–' : digits(score);
    row.score.title = data.base === null ? '' : __('base %1', digits(data.base));
    row.weight.textContent = data.weight === null ? '' : digits(data.weight, 3);
    row.weight.title = data.weight === null ? '' : __('combine weight');
    const words = { '': '', chosen: __('chosen'), native: __('native'), banned: __('banned'), forced: __('forced') };
    row.badge.textContent = words[data.state];
    row.badge.title = data.state === 'native' ? __('chosen in the base run, not any more') : '';
    setAttr(row.node, 'data-wb-state', data.state);
    setAttr(row.node, 'data-wb-chosen', String(data.chosen));
    setAttr(row.node, 'data-wb-native', String(data.native));
    const index = find(plan, ['reroute.ban', 'reroute.force'], this.target, data.expert);
    const kind = index < 0 ? '' : plan.edits[index]!.kind;
    const where = this.scope === 'all' ? __('all tokens') : __('this token');
    row.ban.textContent = kind === 'reroute.ban' ? __('Unban') : __('Ban');
    row.force.textContent = kind === 'reroute.force' ? __('Unforce') : __('Force');
    const biased = find(plan, ['reroute.bias'], this.target, data.expert);
    const delta = biased < 0 ? null : plan.edits[biased]!.delta;
    row.boost.disabled = refused;
    setAttr(row.boost, 'aria-pressed', String(delta !== null));
    setAttr(row.boost, 'aria-label', __('Boost expert %1', data.expert));
    row.boost.title = __('Raise the logit of expert %1 by 1 (Shift: lower) · %2 · now %3', data.expert, where, signed(delta ?? 0, 2));
    for (const [control, on] of [
      [row.ban, kind === 'reroute.ban'],
      [row.force, kind === 'reroute.force']
    ] as const) {
      control.disabled = refused;
      setAttr(control, 'aria-pressed', String(on));
      control.title = `${control.textContent} · ${__('expert %1', data.expert)} · ${where}`;
      setAttr(control, 'aria-label', __('%1 expert %2', control.textContent, data.expert));
    }
  }
}

/** A drop-down list whose name is read out. */
export function choice(
  name: string,
  options: [string, string][],
  change: (value: string) => void
): HTMLSelectElement {
  const node = h('select', { class: 'wb-select', attrs: { 'aria-label': name } });
  node.append(...options.map(([value, text]) => h('option', { text, attrs: { value } })));
  node.addEventListener('change', () => change(node.value));
  return node;
}
