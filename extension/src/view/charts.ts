/** The charts of a run, linked with the map: a rule stands at the layer in view, a click on a layer selects it. */
import type { ControlRequest } from './channel';
import { h, setAttr, setText } from './dom';
import { Figure } from './figure';
import type { Chart, State } from './protocol';
import { __, told, toldIn } from './words';

/** The kernel's `charts.LAYER`. */
const LAYER = 'layer_in_view';

export interface ChartsActions {
  send: (request: ControlRequest) => number;
  /** Selects a layer on the map. */
  layer: (layer: number) => void;
}

export class ChartsView {
  readonly node: HTMLElement;
  private readonly figures: Map<string, Figure>;
  private readonly run = h('span', { class: 'wb-quiet' });
  private readonly asked = new Map<string, string>();
  private state: State | null = null;
  private open = false;

  constructor(private readonly actions: ChartsActions) {
    const titles: [string, string][] = [
      ['load', __('Expert load by layer')],
      ['contribution', __('Contribution by layer')],
      ['rank', __('Attention rank by layer')],
      ['sparsity', __('Activation sparsity by layer')],
      ['entropy', __('Router entropy by layer')],
      ['affinity', __('Affinity of experts between layers')]
    ];
    const pick = (datum: Record<string, unknown>): void => {
      const layer = Number(datum['layer']);
      if (datum['layer'] !== undefined && Number.isInteger(layer)) {
        actions.layer(layer);
      }
    };
    this.figures = new Map(titles.map(([name, title]) => [name, new Figure(name, title, pick)]));
    this.node = h(
      'section',
      { class: 'wb-card', attrs: { 'data-wb-view': 'charts' } },
      h('div', { class: 'wb-row' }, h('h3', { class: 'wb-title', text: __('Charts of the run in view') }), this.run),
      h('p', { class: 'wb-note', text: __('The dashed rule is the layer in view; a click on a mark selects its layer.') }),
      h('div', { class: 'wb-figures' }, ...[...this.figures.values()].map(figure => figure.node))
    );
  }

  /** Whether the view is on the screen: nothing is asked for while it is not. */
  opened(open: boolean): void {
    this.open = open;
    this.ask();
  }

  show(state: State | null): void {
    this.state = state;
    const run = state?.edited ?? state?.base;
    setText(this.run, run ? (state?.edited ? __('edited %1', run.id) : __('base %1', run.id)) : __('No prompt has been run yet.'));
    setAttr(this.node, 'data-wb-layer', state?.selected ? String(state.selected.layer) : undefined);
    const layer = state?.selected?.layer;
    if (layer !== undefined) {
      this.figures.forEach(figure => figure.set(LAYER, layer));
    }
    this.ask();
  }

  take(chart: Chart): void {
    const run = this.state?.edited ?? this.state?.base;
    if (chart.run === run?.id) {
      void this.figures.get(chart.chart)?.show(toldIn(chart.spec) as object | null, chart.note ? told(chart.note) : '');
    }
  }

  restyle(): void {
    this.figures.forEach(figure => figure.restyle());
  }

  private ask(): void {
    const run = this.state?.edited ?? this.state?.base;
    if (!this.open || !run || this.state?.stale) {
      return;
    }
    const layer = this.state?.selected?.layer ?? 0;
    for (const chart of this.figures.keys()) {
      // The affinity is that of one layer; a large model's load shows the layers around it.
      const key = chart === 'affinity' || (chart === 'load' && this.state!.bench.layers * this.state!.bench.experts > 5000) ? `${run.id}:${layer}` : run.id;
      if (this.asked.get(chart) !== key) {
        this.asked.set(chart, key);
        this.actions.send({ type: 'draw', chart, run: run.id, layer });
      }
    }
  }
}
