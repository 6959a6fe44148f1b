/** The inspector: every expert of one cell with its score, and the buttons that re-route. */
import { CellTools } from './celltools';
import { Changed } from './changed';
import type { ComputeRequest, ControlRequest } from './channel';
import { eventsInWords } from './depth';
import { button, choice, h, setAttr, setText, setTitle, shown } from './dom';
import { type Scope, type Target, boost, find, placeOf, scaleWeight, scaled, toggle } from './edits';
import { HeadsCard } from './heads';
import type { Box } from './paint';
import { ProfileCard } from './profile';
import type { HopedPlan } from './hopes';
import type { BenchFacts, Calibrated, Contributions, ExpertRow, Heads, Inspection, Profile, RunCard, Trials } from './protocol';
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
  adds: HTMLElement;
  ban: HTMLButtonElement;
  force: HTMLButtonElement;
  boost: HTMLButtonElement;
  slider: HTMLInputElement;
  changed: Changed;
}

export class Inspector {
  readonly node: HTMLElement;
  private readonly title = h('h3', { class: 'wb-title' });
  private readonly facts = h('dl', { class: 'wb-facts' });
  private readonly note = h('p', { class: 'wb-note' });
  private readonly list = h('div', { class: 'wb-experts', attrs: { role: 'list', 'aria-label': __('Experts') } });
  private readonly tools: HTMLElement;
  private readonly attempt: HTMLButtonElement;
  private readonly trials: TrialList;
  private readonly scopes: HTMLSelectElement;
  private readonly orders: HTMLSelectElement;
  private readonly rows = new Map<number, Row>();
  private scope: Scope = 'all';
  private order: Order = 'score';
  private cell: Inspection | null = null;
  private plan: HopedPlan | null = null;
  private bench: BenchFacts | null = null;
  private box: Box | null = null;
  private base: string | null = null;
  /** The model of the run in view, where it is not the one that edits act on. */
  private foreign: string | null = null;
  private readonly profile = new ProfileCard();
  private readonly heads: HeadsCard;
  private readonly more: CellTools;
  private effects: Contributions | null = null;
  private readonly changed = new Changed();
  private readonly told = new Changed();
  private readonly boxScope = h('option', { text: __('the marked box'), attrs: { value: 'box' } });

  constructor(
    private readonly send: (request: ControlRequest) => void,
    compute: (request: ComputeRequest) => number
  ) {
    this.trials = new TrialList(send);
    this.heads = new HeadsCard(send, compute);
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
    this.more = new CellTools(this.attempt, send, compute, layer => this.heads.ask(layer));
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
    this.tools = h(
      'div',
      { class: 'wb-tools' },
      h('label', { class: 'wb-label' }, __('Act on'), ' ', this.scopes),
      h('label', { class: 'wb-label' }, __('Sort'), ' ', this.orders)
    );
    this.node = h(
      'section',
      { class: 'wb-card wb-inspector', attrs: { 'aria-label': __('Cell inspector') } },
      h('div', { class: 'wb-row' }, this.title),
      this.facts,
      this.tools,
      this.note,
      this.more.node,
      this.trials.node,
      this.heads.node,
      this.profile.node,
      this.list
    );
    this.render();
  }

  /** `run` is what the map shows, `base` the run it stands beside. */
  show(cell: Inspection | null, plan: HopedPlan | null, bench: BenchFacts | null, run: RunCard | null, base: string | null): void {
    if (!this.changed.by(cell, plan, bench, run?.model, base)) {
      return;
    }
    this.foreign = run && bench && run.model !== bench.name ? run.model || __('another model') : null;
    this.cell = cell;
    this.plan = plan;
    this.bench = bench;
    this.base = base;
    this.profile.inspect(cell?.layer);
    this.heads.show(cell, plan);
    this.render();
  }

  /** A box has been marked on the map, or unmarked: clicks act on it as long as it stands. */
  mark(box: Box | null): void {
    const begins = box && !this.box;
    this.box = box;
    if (box) {
      if (!this.boxScope.isConnected) {
        this.scopes.append(this.boxScope);
      }
      if (begins) {
        this.scope = 'box';
      }
    } else {
      this.boxScope.remove();
      if (this.scope === 'box') {
        this.scope = 'all';
      }
    }
    this.scopes.value = this.scope;
    this.render();
  }

  /** Where clicks act until another scope is chosen. */
  actOn(scope: 'all' | 'token'): void {
    this.scope = scope;
    this.scopes.value = scope;
    this.render();
  }

  /** Draws again with the colours of the theme. */
  restyle(): void {
    this.render();
  }

  takeProfile(profile: Profile): void {
    this.profile.take(profile);
  }

  takeCalibrated(measured: Calibrated): void {
    this.more.take(measured);
  }

  takeHeads(heads: Heads, buffers: DataView[]): void {
    this.heads.take(heads, buffers);
  }

  /** What the parts of a cell add to the next token. */
  takeContributions(effects: Contributions | null): void {
    this.effects = effects;
    this.render();
  }

  /** What a trial of every expert has found. */
  take(trials: Trials | null): void {
    this.trials.take(trials);
    this.trials.show(this.cell);
    if (trials === null) {
      this.effects = null;
    }
  }

  private get target(): Target {
    return { layer: this.cell!.layer, position: this.cell!.position, scope: this.scope, box: this.box };
  }

  private render(): void {
    const cell = this.cell;
    const plan = this.plan;
    setAttr(this.node, 'data-wb-cell', cell ? `${cell.layer},${cell.position}` : undefined);
    this.trials.show(cell);
    this.tools.hidden = !cell || this.foreign !== null;
    this.orders.parentElement!.hidden = this.attempt.hidden = !cell?.experts.length;
    this.renderFacts(cell, plan);
    if (!cell || !plan) {
      setText(this.note, __('Run a prompt, then click a cell of the map to see how its token was routed.'));
      this.list.replaceChildren();
      this.rows.clear();
      this.more.show(null);
      return;
    }
    const refusal = this.foreign === null ? this.bench?.refused[String(cell.layer)] : '';
    const routed = cell.experts.length > 0 && refusal === undefined;
    const base = this.base === cell.run ? null : this.base;
    this.more.show(this.foreign === null ? { cell, plan, target: this.target, base, routed } : null);
    this.attempt.disabled = refusal !== undefined || !cell.experts.some(row => row.chosen);
    this.renderNote(cell, refusal);
    this.renderRows(cell, plan, refusal !== undefined);
  }

  /** What can be said of the cell as a whole. */
  private renderFacts(cell: Inspection | null, plan: HopedPlan | null): void {
    const effects = this.here;
    setAttr(this.node, 'data-wb-contributions', effects && cell ? `${cell.layer},${cell.position}` : undefined);
    if (!this.told.by(cell && plan ? { ...cell, experts: cell.experts.length } : null, effects)) {
      return;
    }
    this.facts.replaceChildren();
    if (!cell || !plan) {
      this.title.textContent = __('Inspector');
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
    if (cell.events.length) {
      this.facts.append(h('div', {}, h('dt', { text: __('depth') }), h('dd', { text: eventsInWords(cell.events) })));
    }
    if (effects) {
      const meaning = __('added to the logit of the token that follows, “%1”, directly', shown(effects.target));
      this.fact(__('attention → %1', shown(effects.target)), effects.attention, meaning);
      this.fact(__('MLP → %1', shown(effects.target)), effects.mlp, meaning);
    }
  }

  /** The contributions, if they are of the inspected cell as it ran. */
  private get here(): Contributions | null {
    const { effects, cell } = this;
    return effects && cell && effects.run === cell.run && effects.layer === cell.layer && effects.position === cell.position ? effects : null;
  }

  private fact(name: string, value: number | null | undefined, meaning: string): void {
    if (value !== null && value !== undefined) {
      this.facts.append(
        h('div', { title: meaning }, h('dt', { text: name }), h('dd', { text: digits(value) }))
      );
    }
  }

  private renderNote(cell: Inspection, refusal: string | undefined): void {
    if (this.foreign !== null) {
      setText(this.note, __('This run was recorded with %1, which is not the open model: it can be looked at. Press Run to read its prompt with the open model.', this.foreign));
    } else if (cell.skipped) {
      setText(this.note, __('This block is skipped: nothing in it runs.'));
    } else if (refusal !== undefined) {
      setText(this.note, __('This layer can be read but not re-routed: %1', refusal));
    } else if (!cell.experts.length) {
      setText(this.note, __('This layer has no router: every token passes through the same MLP. What you click here acts %1.', placeOf(this.target)));
    } else {
      setText(this.note, __('What you click here acts %1. %2 of %3 experts are chosen per token.', placeOf(this.target), cell.choices, cell.experts.length));
    }
  }

  private renderRows(cell: Inspection, plan: HopedPlan, refused: boolean): void {
    // Sorted by the base run's scores, so that rows stay under the pointer while experts are banned one by one.
    // Without scores, as of a run out of the store, the chosen come first.
    const rank = (row: ExpertRow): number => row.base ?? row.score ?? (row.weight === null ? -Infinity : row.weight - 1e9);
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
    const adds = h('span', { class: 'wb-adds wb-number', attrs: { hidden: true } });
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
    const slider = h('input', {
      class: 'wb-slider',
      attrs: { type: 'range', min: '0', max: '3', step: '0.1', 'data-wb-action': 'weight', 'aria-label': __('Factor of the weight of expert %1', expert) },
      on: {
        change: () => {
          const request = this.plan && this.cell ? scaleWeight(this.plan, this.target, expert, Number(slider.value)) : null;
          if (request) {
            this.send(request);
          }
        },
        input: () => (slider.title = __('weight × %1', slider.value))
      }
    });
    const profile = button(String(expert), 'profile', __('What else is routed to expert %1', expert), () => {
      if (this.cell) {
        this.profile.want(this.cell.layer, expert);
        this.send({ type: 'profile_of', layer: this.cell.layer, expert });
      }
    });
    profile.classList.add('wb-expert-id');
    const node = h(
      'div',
      { class: 'wb-expert', attrs: { role: 'listitem', 'data-wb-expert': String(expert) } },
      swatch,
      profile,
      h('div', { class: 'wb-track' }, bar, score),
      h('div', { class: 'wb-weight-cell' }, weight, slider),
      badge,
      ban,
      force,
      raise,
      adds
    );
    const row = { node, bar, score, weight, badge, adds, ban, force, boost: raise, slider, changed: new Changed() };
    this.rows.set(expert, row);
    return row;
  }

  private fill(row: Row, data: ExpertRow, plan: HopedPlan, low: number, top: number, refused: boolean): void {
    const effect = this.here?.experts.find(one => one.expert === data.expert)?.effect ?? null;
    const index = find(plan, ['reroute.ban', 'reroute.force'], this.target, data.expert);
    const kind = index < 0 ? '' : plan.edits[index]!.kind;
    const asked = index >= 0 && plan.edits[index]!.pending === true;
    const biased = find(plan, ['reroute.bias'], this.target, data.expert);
    const delta = biased < 0 ? null : plan.edits[biased]!.delta;
    const factor = scaled(plan, this.target, data.expert);
    if (!row.changed.by(data, low, top, refused, effect, this.here?.target, kind, asked, delta, factor, this.scope)) {
      return;
    }
    const score = data.score ?? data.base;
    const share = score === null || top === low ? 0 : (score - low) / (top - low);
    row.bar.style.width = `${(100 * share).toFixed(1)}%`;
    setText(row.score, score === null ? '–' : digits(score, 3));
    setAttr(row.score, 'data-wb-score', score === null ? undefined : String(score));
    setTitle(row.score, data.base === null ? '' : __('base %1', digits(data.base)));
    setText(row.weight, data.weight === null ? '' : digits(data.weight, 3));
    setTitle(row.weight, data.weight === null ? '' : __('combine weight'));
    const words = { '': '', chosen: __('chosen'), native: __('native'), banned: __('banned'), forced: __('forced') };
    const hoped = kind === 'reroute.ban' ? __('ban …') : __('force …');
    setText(row.badge, asked ? hoped : words[data.state]);
    setTitle(row.badge, asked ? __('asked for, not executed yet') : data.state === 'native' ? __('chosen in the base run, not any more') : '');
    setAttr(row.node, 'data-wb-pending', asked ? 'true' : undefined);
    setAttr(row.node, 'data-wb-state', data.state);
    setAttr(row.node, 'data-wb-chosen', String(data.chosen));
    setAttr(row.node, 'data-wb-native', String(data.native));
    const adds = [
      ...(data.output === null ? [] : [__('output %1', digits(data.output, 3))]),
      ...(effect === null ? [] : [__('logit of “%1” %2', shown(this.here!.target), signed(effect, 3))])
    ];
    row.adds.hidden = !adds.length;
    setText(row.adds, adds.join(' · '));
    setTitle(row.adds, __('norm of what the expert adds to the stream; then what that adds to the logit of the token that follows, directly'));
    setAttr(row.node, 'data-wb-effect', effect === null ? undefined : String(effect));
    const where = this.scope === 'box' ? __('the marked box') : this.scope === 'all' ? __('all tokens') : __('this token');
    setText(row.ban, kind === 'reroute.ban' ? __('Unban') : __('Ban'));
    setText(row.force, kind === 'reroute.force' ? __('Unforce') : __('Force'));
    row.boost.disabled = refused;
    row.slider.hidden = refused || (!data.chosen && factor === 1);
    row.slider.value = String(factor);
    setTitle(row.slider, __('weight × %1 · drag to change · %2', digits(factor, 2), where));
    setAttr(row.boost, 'aria-pressed', String(delta !== null));
    setAttr(row.boost, 'aria-label', __('Boost expert %1', data.expert));
    setTitle(row.boost, __('Raise the logit of expert %1 by 1 (Shift: lower) · %2 · now %3', data.expert, where, signed(delta ?? 0, 2)));
    for (const [control, on] of [
      [row.ban, kind === 'reroute.ban'],
      [row.force, kind === 'reroute.force']
    ] as const) {
      control.disabled = refused;
      setAttr(control, 'aria-pressed', String(on));
      setTitle(control, `${control.textContent} · ${__('expert %1', data.expert)} · ${where}`);
      setAttr(control, 'aria-label', __('%1 expert %2', control.textContent, data.expert));
    }
  }
}
