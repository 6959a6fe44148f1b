/** All parts of the panel, how they stand together, and what they ask of each other; the app behind them keeps the state. */
import { Alerts } from './alerts';
import type { ComputeRequest, ControlRequest } from './channel';
import { ChartsView } from './charts';
import { CompareView } from './compare';
import { button, h } from './dom';
import { ExperimentsView } from './experiments';
import { EditForm } from './forms';
import { Head } from './head';
import { Help } from './help';
import { Inspector } from './inspector';
import { LiveView } from './live';
import type { Place } from './map';
import { MapCard } from './mapcard';
import { NextTable } from './next';
import { PlanList } from './planlist';
import { PromptField } from './prompt';
import type { Reply } from './protocol';
import { RunList } from './runs';
import { SqlView } from './sql';
import { TokenStrip } from './strip';
import { Tabs } from './tabs';
import { __ } from './words';

/** What the parts ask of the app. */
export interface Hub {
  control: (request: ControlRequest) => number;
  compute: (request: ComputeRequest) => number;
  run: () => void;
  open: (model: string | null) => void;
  generate: (on: boolean) => void;
  flip: () => void;
  select: (place: Place) => void;
  /** The inspected cell, else the first one. */
  place: () => Place;
  /** Another view has come onto the screen. */
  turned: (key: string) => void;
  link: () => ((sql: string) => string) | null;
  fail: (problem: string, remedy: string) => void;
}

export class Parts {
  readonly form: EditForm;
  readonly card: MapCard;
  readonly inspector: Inspector;
  readonly planList: PlanList;
  readonly next: NextTable;
  readonly live: LiveView;
  readonly charts: ChartsView;
  readonly compare: CompareView;
  readonly runs: RunList;
  readonly sql: SqlView;
  readonly experiments: ExperimentsView;
  readonly head: Head;
  readonly help = new Help(() => this.body.parentElement!);
  readonly strip: TokenStrip;
  readonly tabs: Tabs;
  readonly prompt: PromptField;
  readonly runButton: HTMLButtonElement;
  readonly status = h('span', { class: 'wb-status', attrs: { role: 'status' } });
  readonly progress = h('progress', { class: 'wb-progress', attrs: { max: '1', 'aria-label': __('Progress'), hidden: true } });
  readonly alerts = new Alerts();
  readonly welcome = h('section', { class: 'wb-card wb-welcome' });
  /** All that needs a model. */
  readonly body: HTMLElement;

  constructor(hub: Hub) {
    const { control, compute, select, place } = hub;
    const look = (): void => this.tabs.choose('map');
    this.form = new EditForm({ send: control });
    this.strip = new TokenStrip(position => select({ ...place(), position }));
    this.prompt = new PromptField(hub.run);
    this.card = new MapCard({
      send: control,
      select,
      brush: box => this.inspector.mark(box),
      editBox: ({ layers, tokens }) =>
        this.form.open('reroute.ban', {
          layers: Array.from({ length: layers[1] - layers[0] + 1 }, (_, n) => layers[0] + n),
          tokens: { start: tokens[0], stop: tokens[1] + 1 }
        }),
      flip: hub.flip,
      texts: () => this.strip.show(this.card.data, place().position)
    });
    this.inspector = new Inspector(control, compute);
    this.planList = new PlanList(control, compute, this.form, hub.fail);
    this.live = new LiveView({ compute, generate: hub.generate, select: position => select({ ...place(), position }) });
    this.next = new NextTable(position => control({ type: 'next', position }));
    this.charts = new ChartsView({ send: control, layer: layer => select({ ...place(), layer }) });
    this.compare = new CompareView({
      send: control,
      look,
      list: () => this.tabs.choose('runs'),
      select: (layer, position) => {
        select({ layer, position });
        look();
      }
    });
    this.runs = new RunList({
      send: control,
      look,
      compare: (base, run) => {
        this.compare.take(null);
        control({ type: 'compare', base, run });
        this.tabs.choose('compare');
      }
    });
    this.sql = new SqlView({ send: control, link: hub.link, fail: hub.fail });
    this.experiments = new ExperimentsView({
      send: control,
      runs: text => {
        this.tabs.choose('runs');
        this.runs.find(text);
      }
    });
    this.head = new Head(
      {
        control,
        use: key => {
          hub.generate(false);
          control({ type: 'use', key });
        },
        open: hub.open,
        help: () => this.help.open()
      },
      h('div', { class: 'wb-grow wb-busy-line' }, this.progress, this.status)
    );
    this.runButton = button(__('Run'), 'run', __('Run the prompt (Enter; Shift+Enter for a new line)'), hub.run);
    this.runButton.classList.add('wb-primary');
    const view = (...cards: HTMLElement[]): HTMLElement => h('div', { class: 'wb-view' }, ...cards);
    const views = [
      { key: 'map', label: __('Map'), title: __('The routing map of the run in view'), panel: view(this.card.node, this.next.node) },
      { key: 'charts', label: __('Charts'), title: __('Attention rank, contribution, sparsity, load and affinity'), panel: view(this.charts.node) },
      { key: 'compare', label: __('Difference'), title: __('Two runs side by side'), panel: view(this.compare.node) },
      { key: 'runs', label: __('Runs'), title: __('All runs of the store'), panel: view(this.runs.node) },
      { key: 'experiments', label: __('Experiments'), title: __('Experiments of the store, while they run'), panel: view(this.experiments.node) },
      { key: 'sql', label: __('SQL'), title: __('Ask the store'), panel: view(this.sql.node) }
    ];
    this.tabs = new Tabs(__('Views'), views, hub.turned);
    const page = button(__('Save as page'), 'page', __('One HTML file of the runs in view that opens without a kernel'), () =>
      control({ type: 'export', format: 'html', sql: '' })
    );
    this.body = h(
      'div',
      { class: 'wb-body' },
      h(
        'div',
        { class: 'wb-left' },
        h(
          'section',
          { class: 'wb-card', attrs: { 'aria-label': __('Prompt') } },
          h('div', { class: 'wb-row wb-prompt-row' }, this.prompt.node, this.runButton),
          h('div', { class: 'wb-row' }, this.strip.node)
        ),
        this.live.node,
        h('div', { class: 'wb-row wb-tab-row' }, this.tabs.node, h('span', { class: 'wb-grow' }), page),
        ...views.map(({ panel }) => panel)
      ),
      h('div', { class: 'wb-right' }, this.planList.node, this.inspector.node)
    );
  }

  /** From the top of the panel to its foot. */
  get nodes(): HTMLElement[] {
    return [this.head.node, this.alerts.node, this.help.node, this.welcome, this.body];
  }

  /** Gives a message that concerns one part alone to it; whether it was one. */
  take(message: Reply, buffers: DataView[]): boolean {
    switch (message.type) {
      case 'tile':
        this.card.takeTile(message, buffers);
        return true;
      case 'load':
        this.card.takeLoad(message, buffers);
        return true;
      case 'trials':
        this.inspector.take(message);
        return true;
      case 'heads':
        this.inspector.takeHeads(message, buffers);
        return true;
      case 'profile':
        this.inspector.takeProfile(message);
        return true;
      case 'contributions':
        this.inspector.takeContributions(message);
        return true;
      case 'calibrated':
        this.inspector.takeCalibrated(message);
        return true;
      case 'effects':
        this.planList.take(message);
        return true;
      case 'forms':
        this.form.take(message);
        return true;
      case 'previewed':
        this.form.previewed(message);
        return true;
      case 'runs':
        this.runs.take(message);
        return true;
      case 'comparison':
        this.compare.take(message);
        return true;
      case 'experiments':
        this.experiments.take(message);
        return true;
      case 'catalogue':
        this.sql.takeCatalogue(message);
        return true;
      case 'table':
        this.sql.take(message);
        return true;
      case 'chart':
        if (message.chart === 'query') {
          this.sql.takeChart(message);
        } else {
          this.charts.take(message);
        }
        return true;
      case 'models':
        this.head.showModels(message);
        return true;
      default:
        return false;
    }
  }
}
