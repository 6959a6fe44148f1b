/** What else a click can do at the inspected cell: skip, mask, replay, look into the heads; each with its scope in words. */
import type { ComputeRequest, ControlRequest } from './channel';
import { button, choice, h, setAttr, setText, setTitle } from './dom';
import { type Criterion, type SkipKind, type Target, find, placeOf, replay, rerouting, toggleNeurons, toggleSkip } from './edits';
import type { Calibrated, Inspection, PlanCard } from './protocol';
import { __, told } from './words';

/** What the activity of neurons is measured on. */
type Texts = 'prompt' | 'runs';

/** What the tools have to know of the inspector. */
export interface CellSight {
  cell: Inspection;
  plan: PlanCard;
  target: Target;
  /** The base run, where the run in view is another one. */
  base: string | null;
  /** Whether the choice of this layer can be changed. */
  routed: boolean;
}

export class CellTools {
  readonly node: HTMLElement;
  private readonly skips: [SkipKind, string, HTMLButtonElement][];
  private readonly ratio: HTMLInputElement;
  private readonly criteria: HTMLSelectElement;
  private readonly neurons: HTMLButtonElement;
  private readonly source: HTMLInputElement;
  private readonly imitate: HTMLButtonElement;
  private readonly replayBase: HTMLButtonElement;
  private readonly like: HTMLElement;
  private readonly texts: HTMLSelectElement;
  private readonly measured = h('p', { class: 'wb-note', attrs: { role: 'status' } });
  private criterion: Criterion = 'magnitude';
  /** A mask that waits for what its neurons are chosen by, the number of the request for that, and what was measured last. */
  private waiting: { seq: number; edit: Record<string, unknown> } | null = null;
  private found: Calibrated | null = null;
  private sight: CellSight | null = null;

  /** `attempt` is the inspector's own question, first among those that run the model. */
  constructor(attempt: HTMLElement, private readonly send: (request: ControlRequest) => void, private readonly compute: (request: ComputeRequest) => number, heads: (layer: number) => void) {
    const skip = (kind: SkipKind, name: string, action: string): [SkipKind, string, HTMLButtonElement] => [
      kind,
      name,
      button(name, action, '', () => this.sight && send(toggleSkip(this.sight.plan, kind, this.sight.target)))
    ];
    this.skips = [
      skip('skip.block', __('block'), 'skip'),
      skip('skip.attention', __('attention'), 'skip-attention'),
      skip('skip.mlp', __('MLP'), 'skip-mlp')
    ];
    this.ratio = h('input', {
      class: 'wb-input wb-percent',
      attrs: { type: 'number', min: '1', max: '99', value: '50', 'aria-label': __('Percent of the neurons to mask') },
      on: { input: () => this.render() }
    });
    this.criteria = choice(
      __('Which neurons'),
      [
        ['magnitude', __('of least weight')],
        ['activation', __('least active')],
        ['random', __('at random')]
      ],
      value => {
        this.criterion = value as Criterion;
        this.found = null;
        this.render();
      }
    );
    this.texts = choice(
      __('Activity measured on'),
      [
        ['prompt', __('on this prompt')],
        ['runs', __('on runs of the store')]
      ],
      () => {
        this.found = null;
        this.render();
      }
    );
    this.neurons = button(__('Mask'), 'mask-neurons', '', () => this.mask());
    this.source = h('input', {
      class: 'wb-input wb-percent',
      attrs: { type: 'number', min: '0', 'aria-label': __('Token to take the route from'), placeholder: '0' },
      on: { input: () => this.render() }
    });
    this.imitate = button(__('Route like token'), 'imitate', __('Give this token the experts and weights of another one in this layer'), () => {
      if (this.sight && this.source.value) {
        const { layer, position } = this.sight.cell;
        send({ type: 'imitate', layer, position, source: Number(this.source.value) });
      }
    });
    this.replayBase = button(__('Replay base'), 'replay', '', () => this.sight?.base && send(replay(this.sight.target, this.sight.base)));
    const look = button(__('Heads'), 'heads', __('Show what each attention head of this layer looks at, and mask one'), () => this.sight && heads(this.sight.cell.layer));
    const measure = button(__('Contributions'), 'contributions', __('What the experts, the attention and the MLP add to the next token here'), () => {
      if (this.sight) {
        compute({ type: 'contributions_of', layer: this.sight.cell.layer, position: this.sight.cell.position });
      }
    });
    this.like = h('div', { class: 'wb-row' }, this.imitate, this.source, this.replayBase);
    const label = (text: string): HTMLElement => h('span', { class: 'wb-label', text });
    this.node = h(
      'div',
      { class: 'wb-more' },
      h('div', { class: 'wb-row' }, attempt, measure, look),
      h('div', { class: 'wb-row', attrs: { role: 'group', 'aria-label': __('Skip') } }, label(__('Skip')), ...this.skips.map(([, , node]) => node)),
      h('div', { class: 'wb-row', attrs: { role: 'group', 'aria-label': __('Mask neurons') } }, this.neurons, this.ratio, label(__('% of neurons')), this.criteria, this.texts),
      this.measured,
      this.like
    );
  }

  /** Shows what can be done there; `null` hides all of it. */
  show(sight: CellSight | null): void {
    this.sight = sight;
    this.node.hidden = sight === null;
    this.render();
  }

  /** What a mask by activation waits for has been measured. */
  take(measured: Calibrated): void {
    if (this.waiting?.seq === measured.seq) {
      this.send({ type: 'add', edit: { ...this.waiting.edit, source: measured.source } });
      this.waiting = null;
      this.found = measured;
      this.render();
    }
  }

  private mask(): void {
    if (!this.sight) {
      return;
    }
    const request = toggleNeurons(this.sight.plan, this.sight.target, this.share, this.criterion);
    if (request.type === 'add' && this.criterion === 'activation') {
      this.waiting = { seq: this.compute({ type: 'calibrate', texts: this.texts.value as Texts }), edit: request.edit };
    } else {
      this.send(request);
    }
  }

  private get share(): number {
    return Number(this.ratio.value) / 100;
  }

  /** What stands behind a mask by activation. */
  private get words(): string {
    if (this.found) {
      const { runs, tokens } = this.found;
      return this.texts.value === 'prompt' ? __('Measured on the %1 tokens of the prompt.', tokens) : __('Measured on %1 texts of the store, %2 tokens.', runs, tokens);
    }
    const read = this.texts.value === 'prompt' ? __('Mask first reads the prompt once more, without the plan.') : __('Mask first reads the newest texts of this model in the store once more, without a plan.');
    return `${read} ${__('Of an expert that no token chose there nothing is known: its first neurons are masked.')}`;
  }

  private render(): void {
    if (!this.sight) {
      return;
    }
    const { plan, target, base, cell, routed } = this.sight;
    const where = placeOf(target);
    for (const [kind, name, node] of this.skips) {
      const on = find(plan, [kind], target) >= 0;
      setAttr(node, 'aria-pressed', String(on));
      setAttr(node, 'aria-label', on ? __('Unskip %1', name) : __('Skip %1', name));
      setTitle(node, on ? __('Run the %1 again %2', name, where) : __('Leave the %1 out %2', name, where));
    }
    const valid = this.share > 0 && this.share < 1;
    this.neurons.disabled = !valid;
    const masked = valid && toggleNeurons(plan, target, this.share, this.criterion).type === 'remove';
    setAttr(this.neurons, 'aria-pressed', String(masked));
    setText(this.neurons, masked ? __('Unmask') : __('Mask'));
    setAttr(this.neurons, 'aria-label', masked ? __('Unmask neurons') : __('Mask neurons'));
    setTitle(this.neurons, masked ? __('Let these neurons act again %1', where) : __('Silence this share of the neurons %1', where));
    this.texts.hidden = this.measured.hidden = this.criterion !== 'activation';
    setText(this.measured, this.words);
    this.like.hidden = !routed;
    this.imitate.disabled = this.source.value === '' || Number(this.source.value) === cell.position;
    const other = rerouting(plan, target);
    this.replayBase.disabled = base === null || !!other;
    setTitle(
      this.replayBase,
      base === null
        ? __('There is no edited run yet: what is in view is the base run')
        : other
          ? __('The plan re-routes this place itself: take out “%1”, or inspect another layer', told(other.text))
          : __('Use the routes of the base run %1, whatever the plan does in other layers', where)
    );
  }
}
