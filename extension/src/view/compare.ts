/** Two runs side by side: text, flips with their causes, where it began, layers. */
import type { ControlRequest } from './channel';
import { button, h, setAttr, shown } from './dom';
import type { Comparison, FlipRow, RunRow, State } from './protocol';
import { digits } from './scale';
import { __ } from './words';

export interface CompareActions {
  send: (request: ControlRequest) => number;
  /** Shows the map. */
  look: () => void;
  list: () => void;
  /** Inspects a cell of the map. */
  select: (layer: number, position: number) => void;
}

export class CompareView {
  readonly node: HTMLElement;
  private readonly body = h('div');
  private readonly pair: HTMLButtonElement;
  private state: State | null = null;
  private told: Comparison | null = null;

  constructor(private readonly actions: CompareActions) {
    this.pair = button(__('Base and edited'), 'compare-view', __('Compare the two runs on the map'), () => this.compareView());
    this.node = h(
      'section',
      { class: 'wb-card', attrs: { 'data-wb-view': 'compare' } },
      h(
        'div',
        { class: 'wb-row' },
        h('h3', { class: 'wb-title', text: __('Difference of two runs') }),
        h('span', { class: 'wb-grow' }),
        this.pair,
        button(__('Choose runs…'), 'choose-runs', __('Tick two runs in the list'), actions.list)
      ),
      this.body
    );
    this.render();
  }

  show(state: State | null): void {
    this.state = state;
    this.pair.disabled = !this.comparable;
    this.render();
  }

  /** Compares base and edited, if nothing else has been compared. */
  opened(): void {
    if (!this.told) {
      this.compareView();
    }
  }

  take(told: Comparison | null): void {
    this.told = told;
    this.render();
  }

  /** Whether base and edited are in the store: a text that grows is written when it has ended. */
  private get comparable(): boolean {
    return !!this.state?.base && !!this.state.edited && !this.state.live;
  }

  private compareView(): void {
    const { base, edited } = this.state ?? {};
    if (this.comparable && base && edited) {
      this.actions.send({ type: 'compare', base: base.id, run: edited.id });
    }
  }

  private render(): void {
    const told = this.told;
    setAttr(this.node, 'data-wb-compare', told ? `${told.base.id},${told.run.id}` : undefined);
    setAttr(this.node, 'data-wb-flips', told ? String(told.flips) : undefined);
    if (!told) {
      this.body.replaceChildren(
        h('p', {
          class: 'wb-note',
          text: this.state?.live
            ? __('This text is still being generated, and can be compared once it has ended: press Run, then tick it in the list of runs.')
            : __('Nothing to compare yet: run a prompt under a plan, or tick two runs in the list of runs.')
        })
      );
      return;
    }
    const causes: Record<string, string> = { edit: __('by an edit'), tie: __('by a tie'), upstream: __('because of what came before') };
    const facts: [string, string][] = [
      [__('aligned tokens'), String(told.aligned)],
      [__('flips'), String(told.flips)],
      ...Object.entries(told.causes).map(([cause, count]): [string, string] => [causes[cause] ?? cause, String(count)]),
      [__('mean KL'), told.kl === null ? __('– (the store keeps no logits)') : __('%1 nats', digits(told.kl))],
      [__('loss'), `${told.base.loss === null ? '–' : digits(told.base.loss)} → ${told.run.loss === null ? '–' : digits(told.run.loss)}`]
    ];
    const onMap = button(__('Show on the map'), 'show-pair', __('The second run, with the first as its base'), () => {
      this.actions.send({ type: 'show', run: told.run.id, base: told.base.id, plan: false });
      this.actions.look();
    });
    this.body.replaceChildren(
      h('div', { class: 'wb-pair' }, this.card(__('base'), told.base), this.card(__('run'), told.run)),
      h('dl', { class: 'wb-facts' }, ...facts.map(([name, value]) => h('div', {}, h('dt', { text: name }), h('dd', { text: value })))),
      h(
        'div',
        { class: 'wb-row' },
        told.first
          ? h('span', {}, __('It begins in layer %1 at token %2, “%3”.', told.first.layer, told.first.position, shown(told.first.text)))
          : h('span', { text: __('No choice differs at aligned tokens.') }),
        onMap
      ),
      h('h4', { class: 'wb-subtitle', text: __('Text') }),
      this.text(told),
      h('h4', { class: 'wb-subtitle', text: __('Layers') }),
      this.layers(told),
      h('h4', { class: 'wb-subtitle', text: told.rows.length < told.flips ? __('The first %1 of %2 flips', told.rows.length, told.flips) : __('Flips') }),
      h('div', { class: 'wb-scroll', attrs: { tabindex: '0', role: 'region', 'aria-label': __('Flips') } }, this.flips(told.rows))
    );
  }

  private card(side: string, run: RunRow): HTMLElement {
    return h(
      'div',
      { class: 'wb-pair-card' },
      h('strong', { text: side }),
      ' ',
      h('span', { class: 'wb-quiet', text: `${run.id} · ${run.model}` }),
      h('div', { class: 'wb-quiet', text: run.edits.join('; ') || __('no plan') })
    );
  }

  private text(told: Comparison): HTMLElement {
    const names = { both: '', base: __('only in base'), run: __('only in run') };
    return h(
      'p',
      { class: 'wb-diff-text' },
      ...told.pieces.map(({ side, text }) =>
        side === 'both'
          ? h('span', { text })
          : h(side === 'base' ? 'del' : 'ins', { class: `wb-${side}-only`, text: text || '∅', title: names[side], attrs: { 'data-wb-side': side } })
      )
    );
  }

  private layers(told: Comparison): HTMLElement {
    const most = Math.max(1, ...told.layers.map(row => row.flips));
    const ranks = told.layers.some(row => row.base_rank !== null && row.run_rank !== null);
    const head = [__('layer'), __('flips'), '', ...(ranks ? [__('attention rank, base'), __('run')] : [])];
    return h(
      'table',
      { class: 'wb-table wb-layer-diff' },
      h('thead', {}, h('tr', {}, ...head.map(text => (text ? h('th', { text, attrs: { scope: 'col' } }) : h('td'))))),
      h(
        'tbody',
        {},
        ...told.layers.map(row => {
          const bar = h('div', { class: 'wb-bar wb-edited' });
          bar.style.width = `${((100 * row.flips) / most).toFixed(1)}%`;
          const number = (value: number | null): string => (value === null ? '–' : digits(value, 3));
          return h(
            'tr',
            {},
            h('th', { text: String(row.layer), attrs: { scope: 'row' } }),
            h('td', { class: 'wb-number', text: String(row.flips) }),
            h('td', { class: 'wb-bars', attrs: { 'aria-hidden': 'true' } }, bar),
            ...(ranks ? [row.base_rank, row.run_rank].map(value => h('td', { class: 'wb-number', text: number(value) })) : [])
          );
        })
      )
    );
  }

  private flips(rows: FlipRow[]): HTMLElement {
    const head = [__('cell'), __('token'), __('base'), __('run'), __('margin of base'), __('cause')];
    return h(
      'table',
      { class: 'wb-table' },
      h('thead', {}, h('tr', {}, ...head.map(text => h('th', { text, attrs: { scope: 'col' } })))),
      h(
        'tbody',
        {},
        ...rows.map(row =>
          h(
            'tr',
            {},
            h(
              'td',
              {},
              button(`${row.layer}, ${row.position}`, 'goto', __('Inspect layer %1, token %2', row.layer, row.position), () =>
                this.actions.select(row.layer, row.position)
              )
            ),
            h('th', { attrs: { scope: 'row' } }, h('code', { class: 'wb-token', text: shown(row.text) })),
            h('td', { class: 'wb-number', text: row.base_experts.join(' ') }),
            h('td', { class: 'wb-number', text: row.run_experts.join(' ') }),
            h('td', { class: 'wb-number', text: row.base_margin === null ? '–' : digits(row.base_margin, 3) }),
            h('td', { text: row.cause })
          )
        )
      )
    );
  }
}
