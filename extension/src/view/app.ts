/** The whole panel: state from the kernel in, requests out. Knows a `Channel` and the page, and nothing of Jupyter. */
import { Alerts } from './alerts';
import { type Channel, type ComputeRequest, type ControlRequest, type Lane, PROTOCOL } from './channel';
import { ChartsView } from './charts';
import { CompareView } from './compare';
import { button, h, setAttr } from './dom';
import { save } from './files';
import { EditForm } from './forms';
import { Head } from './head';
import { Help } from './help';
import { Inspector } from './inspector';
import { LiveView } from './live';
import type { Place } from './map';
import { MapCard } from './mapcard';
import type { Colour } from './mapdata';
import { NextTable } from './next';
import { PlanList } from './planlist';
import { PromptField } from './prompt';
import type { BenchCard, Failure, Inspection, Reply, State } from './protocol';
import { RunList } from './runs';
import { SqlView } from './sql';
import { TokenStrip } from './strip';
import { Tabs } from './tabs';
import { welcome } from './welcome';
import { __ } from './words';

export interface Options {
  /** The version of the package that this view was built with. */
  version: string;
  /** Whether to open the demo model where the kernel has no bench (a kernel of the panel's own). */
  openDemo: boolean;
  /** A place to keep what must survive a restart of the kernel. */
  remember?: (memory: Memory) => void;
}

/** What a person has set for all panels. */
export interface Preferences {
  colour: Colour;
  scope: 'all' | 'token';
  /** An address that opens the panel with a query, where the host has one. */
  link: ((sql: string) => string) | null;
}

/** What a restarted kernel needs to go on where it was. */
export interface Memory {
  model: string | null;
  prompt: string;
  plan: string;
}

/** Requests that run the model. */
const COMPUTES = ['run', 'recompute', 'open', 'step', 'try', 'effects_of', 'heads_of'];
/** Requests that change nothing that anybody could wait for. */
const SILENT = ['watch', 'seen', 'cancel', 'models_of'];
/** Requests whose failure belongs to the query box. */
const ASKED = ['query', 'plot', 'catalogue_of'];

export class App {
  readonly node: HTMLElement;
  private readonly card: MapCard;
  private readonly inspector: Inspector;
  private readonly planList: PlanList;
  private readonly form: EditForm;
  private readonly next: NextTable;
  private readonly live: LiveView;
  private readonly charts: ChartsView;
  private readonly compare: CompareView;
  private readonly runs: RunList;
  private readonly sql: SqlView;
  private readonly head: Head;
  private readonly help = new Help(() => this.node);
  private readonly strip = new TokenStrip(position => this.select({ layer: this.state?.selected?.layer ?? 0, position }));
  private readonly tabs: Tabs;
  private readonly prompt = new PromptField(() => this.run());
  private readonly runButton: HTMLButtonElement;
  private readonly status = h('span', { class: 'wb-status', attrs: { role: 'status' } });
  private readonly progress = h('progress', { class: 'wb-progress', attrs: { max: '1', 'aria-label': __('Progress'), hidden: true } });
  private readonly alerts = new Alerts();
  private readonly welcome = h('section', { class: 'wb-card wb-welcome' });
  private readonly body: HTMLElement;
  private channel: Channel | null = null;
  private options: Options | null = null;
  private preferences: Preferences = { colour: 'expert', scope: 'all', link: null };
  private seq = 0;
  private readonly pending = new Map<number, string>();
  private state: State | null = null;
  private cell: Inspection | null = null;
  private kernelBusy: string | null = null;
  private asked = -1;
  private opened: string | null | undefined;
  private resume: Memory | null = null;
  private generating = false;
  private query: string | null = null;
  private visible = true;

  constructor() {
    const control = (request: ControlRequest): number => this.send('control', request);
    const compute = (request: ComputeRequest): number => this.send('compute', request);
    this.form = new EditForm({ send: control });
    this.card = new MapCard({
      send: control,
      select: place => this.select(place),
      brush: box => this.inspector.mark(box),
      editBox: ({ layers, tokens }) =>
        this.form.open('reroute.ban', {
          layers: Array.from({ length: layers[1] - layers[0] + 1 }, (_, n) => layers[0] + n),
          tokens: { start: tokens[0], stop: tokens[1] + 1 }
        }),
      flip: () => this.flip(),
      texts: () => this.strip.show(this.card.data, this.state?.selected?.position)
    });
    this.inspector = new Inspector(control, compute);
    this.planList = new PlanList(control, compute, this.form, (problem, remedy) => this.fail(problem, remedy));
    this.live = new LiveView({
      compute,
      generate: on => this.generate(on),
      select: position => this.select({ layer: this.state?.selected?.layer ?? 0, position })
    });
    this.next = new NextTable(position => control({ type: 'next', position }));
    const look = (): void => this.tabs.choose('map');
    this.charts = new ChartsView({
      send: control,
      layer: layer => this.select({ layer, position: this.state?.selected?.position ?? 0 })
    });
    this.compare = new CompareView({
      send: control,
      look,
      list: () => this.tabs.choose('runs'),
      select: (layer, position) => {
        this.select({ layer, position });
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
    this.sql = new SqlView({
      send: control,
      link: () => this.preferences.link,
      fail: (problem, remedy) => this.fail(problem, remedy)
    });
    this.head = new Head({
      control,
      use: key => {
        this.generate(false);
        control({ type: 'use', key });
      },
      open: model => this.open(model),
      help: () => this.help.open()
    });
    this.runButton = button(__('Run'), 'run', __('Run the prompt (Enter; Shift+Enter for a new line)'), () => this.run());
    this.runButton.classList.add('wb-primary');
    const map = h('div', { class: 'wb-view' }, this.card.node, this.next.node);
    const views: [string, string, string, HTMLElement][] = [
      ['map', __('Map'), __('The routing map of the run in view'), map],
      ['charts', __('Charts'), __('Attention rank, contribution, sparsity, load and affinity'), h('div', { class: 'wb-view' }, this.charts.node)],
      ['compare', __('Difference'), __('Two runs side by side'), h('div', { class: 'wb-view' }, this.compare.node)],
      ['runs', __('Runs'), __('All runs of the store'), h('div', { class: 'wb-view' }, this.runs.node)],
      ['sql', __('SQL'), __('Ask the store'), h('div', { class: 'wb-view' }, this.sql.node)]
    ];
    this.tabs = new Tabs(
      __('Views'),
      views.map(([key, label, title, panel]) => ({ key, label, title, panel })),
      key => this.turnTo(key)
    );
    this.body = this.layout(views.map(([, , , panel]) => panel));
    this.node = h(
      'div',
      {
        class: 'wb-panel',
        attrs: { 'data-wb-panel': '', 'data-wb-busy': 'true', 'data-wb-view-now': 'map' },
        on: { keydown: event => this.key(event) }
      },
      this.head.node,
      this.alerts.node,
      this.help.node,
      this.welcome,
      this.body
    );
    this.render();
  }

  /** Talks to a kernel; called again after a restart. */
  connect(channel: Channel, options: Options): void {
    this.channel = channel;
    this.options = options;
    this.pending.clear();
    this.asked = -1;
    this.opened = undefined;
    this.kernelBusy = null;
    this.generating = false;
    this.resume = this.memory();
    channel.listen((message, buffers) => this.receive(message, buffers));
    this.send('control', { type: 'hello', protocol: PROTOCOL, version: options.version });
  }

  /** The kernel is away: nothing can be sent until the next `connect`. */
  disconnect(why: string): void {
    this.resume = this.memory();
    this.channel = null;
    this.generating = false;
    this.kernelBusy = why;
    this.renderBusy();
  }

  /** Tells the kernel whether anybody can see the panel. */
  watch(visible: boolean): void {
    this.visible = visible;
    if (!visible) {
      this.generate(false);
    }
    if (this.channel) {
      this.send('control', { type: 'watch', visible });
    }
  }

  /** Takes up what an earlier view had kept. */
  recall(memory: Memory): void {
    this.resume = memory;
    this.prompt.value = memory.prompt;
  }

  /** Takes up what a person has set. */
  prefer(preferences: Preferences): void {
    this.preferences = preferences;
    this.inspector.actOn(preferences.scope);
    this.card.prefer(preferences.colour);
    this.sql.offerLink();
  }

  /** Turns to the query box with `sql` in it, not yet asked. */
  ask(sql: string): void {
    this.query = this.state ? null : sql; // a panel that is still opening shows it once it has a model
    this.tabs.choose('sql');
    this.sql.fill(sql);
  }

  /** Draws again with the colours of the theme. */
  restyle(): void {
    this.card.restyle();
    this.charts.restyle();
    this.sql.restyle();
    this.renderCell();
  }

  focus(): void {
    this.prompt.node.focus();
  }

  fail(problem: string, remedy: string, retry?: () => void): void {
    this.alerts.show(problem, remedy, retry);
  }

  private layout(views: HTMLElement[]): HTMLElement {
    const page = button(__('Save as page'), 'page', __('One HTML file of the runs in view that opens without a kernel'), () =>
      this.send('control', { type: 'export', format: 'html', sql: '' })
    );
    return h(
      'div',
      { class: 'wb-body' },
      h(
        'div',
        { class: 'wb-left' },
        h(
          'section',
          { class: 'wb-card', attrs: { 'aria-label': __('Prompt') } },
          h('div', { class: 'wb-row wb-prompt-row' }, this.prompt.node, this.runButton),
          h('div', { class: 'wb-row' }, this.strip.node, this.progress, this.status)
        ),
        this.live.node,
        h('div', { class: 'wb-row wb-tab-row' }, this.tabs.node, h('span', { class: 'wb-grow' }), page),
        ...views
      ),
      h('div', { class: 'wb-right' }, this.planList.node, this.inspector.node)
    );
  }

  /** Another view has come onto the screen. */
  private turnTo(key: string): void {
    setAttr(this.node, 'data-wb-view-now', key);
    if (this.channel && this.state) {
      this.charts.opened(key === 'charts');
      if (key === 'compare') {
        this.compare.opened();
      } else if (key === 'runs') {
        this.runs.ask();
      } else if (key === 'sql') {
        this.sql.opened();
      }
    }
  }

  private send(lane: Lane, request: ControlRequest | ComputeRequest): number {
    if (!this.channel) {
      this.fail(__('The panel has no kernel.'), __('Wait for it to come back, or start it from the Kernel menu.'));
      return -1;
    }
    const seq = ++this.seq;
    if (!SILENT.includes(request.type)) {
      this.pending.set(seq, request.type);
    }
    this.channel.send(lane, { ...request, seq });
    this.renderBusy();
    return seq;
  }

  private receive(message: Reply, buffers: DataView[]): void {
    switch (message.type) {
      case 'benches':
        this.showBenches(message.benches, message.current);
        break;
      case 'state':
        this.takeState(message);
        break;
      case 'map':
        this.send('control', { type: 'seen' });
        this.card.take(message, buffers);
        this.card.show(this.state);
        this.strip.show(this.card.data, this.state?.selected?.position);
        break;
      case 'tile':
        this.card.takeTile(message, buffers);
        break;
      case 'load':
        this.card.takeLoad(message, buffers);
        break;
      case 'cell':
        this.cell = message;
        this.renderCell();
        break;
      case 'next':
        this.next.show(message);
        break;
      case 'busy':
        this.kernelBusy = message.what;
        this.progress.hidden = message.share === null;
        this.progress.value = message.share ?? 0;
        break;
      case 'trials':
        this.inspector.take(message);
        break;
      case 'heads':
        this.inspector.takeHeads(message, buffers);
        break;
      case 'profile':
        this.inspector.takeProfile(message);
        break;
      case 'effects':
        this.planList.take(message);
        break;
      case 'forms':
        this.form.take(message);
        break;
      case 'previewed':
        this.form.previewed(message);
        break;
      case 'runs':
        this.runs.take(message);
        break;
      case 'comparison':
        this.compare.take(message);
        break;
      case 'catalogue':
        this.sql.takeCatalogue(message);
        break;
      case 'table':
        this.sql.take(message);
        break;
      case 'chart':
        if (message.chart === 'query') {
          this.sql.takeChart(message);
        } else {
          this.charts.take(message);
        }
        break;
      case 'file':
        save(message.name, buffers[0] as DataView<ArrayBuffer>, message.mime);
        break;
      case 'models':
        this.head.showModels(message);
        break;
      case 'done':
        this.finished(message.seq);
        break;
      case 'error':
        this.showFailure(message);
        break;
    }
    this.renderBusy();
  }

  private showFailure(message: Failure): void {
    const type = message.seq === null ? undefined : this.pending.get(message.seq);
    if (type && ASKED.includes(type)) {
      this.sql.fail(message.problem, message.remedy);
      return;
    }
    this.fail(message.problem, message.remedy);
    this.generating = false;
    this.live.show(this.state, false);
    if (type === 'open') {
      this.opened = undefined;
      this.render();
    }
  }

  private finished(seq: number): void {
    const type = this.pending.get(seq);
    this.pending.delete(seq);
    this.card.finished(seq);
    this.sql.finished(seq);
    if (type === 'step' && this.generating) {
      if (this.state?.live?.ended) {
        this.generate(false);
      } else {
        // One token a frame, each asked for by itself: whatever else waits for the model comes in between.
        requestAnimationFrame(() => {
          if (this.generating) {
            this.send('compute', { type: 'step' });
          }
        });
      }
    }
    if ((type === 'run' || type === 'recompute') && this.tabs.current === 'runs' && this.visible) {
      this.runs.ask();
    }
  }

  /** Goes on generating, or stops after the token under way. */
  private generate(on: boolean): void {
    if (on && !this.generating) {
      this.alerts.clear();
      this.send('compute', { type: 'step' });
    }
    this.generating = on && this.channel !== null;
    this.live.show(this.state, this.generating);
    this.renderBusy();
  }

  /** Shows the map of the other side: base for edited, and back. */
  private flip(): void {
    if (this.state?.edited && this.card.data) {
      this.send('control', { type: 'side', base: this.card.data.edited });
    }
  }

  private showBenches(benches: BenchCard[], current: string | null): void {
    this.head.showBenches(benches, current);
    if (!current) {
      this.clear();
      if (this.options?.openDemo && this.opened === undefined && this.alerts.empty) {
        const memory = this.resume;
        this.open(memory?.model ?? null, memory);
      }
    }
    this.render();
  }

  private clear(): void {
    this.state = null;
    this.cell = null;
    this.card.take(null);
    this.next.show(null);
    this.inspector.take(null);
    this.compare.take(null);
  }

  private takeState(state: State): void {
    const other = state.bench.key !== this.state?.bench.key;
    const shown = state.base?.past && state.base.id !== this.state?.base?.id;
    if (other) {
      this.clear();
    }
    if ((other && (state.prompt || !this.prompt.value)) || shown) {
      this.prompt.value = state.prompt;
      this.prompt.grow();
    }
    this.state = state;
    if (state.base?.past) {
      this.next.show(null);
    }
    if (state.stale && this.asked !== state.plan.version) {
      this.asked = state.plan.version;
      this.send('compute', { type: 'recompute' });
    }
    const memory = this.memory();
    if (memory) {
      this.options?.remember?.(memory);
    }
    this.next.moved(state.selected);
    if (other) {
      this.render();
      this.prompt.grow();
      this.turnTo(this.tabs.current);
      if (this.query !== null) {
        this.ask(this.query);
      }
    } else {
      this.renderState();
    }
  }

  private memory(): Memory | null {
    return this.state
      ? { model: this.opened ?? this.resume?.model ?? null, prompt: this.state.prompt, plan: this.state.plan.text }
      : this.resume;
  }

  private open(model: string | null, memory: Memory | null = null): void {
    this.opened = model;
    this.generating = false;
    this.alerts.clear();
    const keep = memory?.prompt ? { prompt: memory.prompt, plan: memory.plan } : { prompt: '', plan: null };
    this.send('compute', { type: 'open', model, ...keep });
  }

  private run(): void {
    this.generating = false;
    this.inspector.take(null);
    this.alerts.clear();
    this.send('compute', { type: 'run', prompt: this.prompt.value });
  }

  private select(place: Place): void {
    this.strip.show(this.card.data, place.position);
    this.send('control', { type: 'select', ...place });
  }

  private key(event: KeyboardEvent): void {
    const typing = event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
    const box = event.target instanceof HTMLInputElement && ['checkbox', 'range'].includes(event.target.type);
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z' && (!typing || box)) {
      event.preventDefault();
      event.stopPropagation();
      this.send('control', { type: event.shiftKey ? 'redo' : 'undo' });
    }
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
    if (plain && event.key.toLowerCase() === 'b' && !(typing && !box) && !(event.target instanceof HTMLSelectElement)) {
      event.preventDefault();
      event.stopPropagation();
      this.flip();
    }
  }

  // --- drawing ------------------------------------------------------------------------------------------------------

  private render(): void {
    this.body.hidden = this.state === null;
    this.renderWelcome();
    this.renderState();
    this.renderBusy();
  }

  private renderWelcome(): void {
    this.welcome.hidden = this.state !== null;
    const opening = [...this.pending.values()].includes('open') || this.options === null;
    this.welcome.replaceChildren(
      ...welcome(opening, this.options?.openDemo ?? false)
    );
  }

  private renderState(): void {
    const state = this.state;
    this.planList.show(state?.plan ?? null);
    this.live.show(state, this.generating);
    this.head.show(state?.bench ?? null);
    this.card.show(state);
    this.charts.show(state);
    this.compare.show(state);
    const run = state?.edited ?? state?.base;
    this.sql.show(run && state?.base ? { run: run.id, base: state.base.id } : null);
    this.runs.mark([state?.base?.id, state?.edited?.id].filter(id => id !== undefined));
    this.renderCell();
    this.strip.show(this.card.data, state?.selected?.position);
  }

  private renderCell(): void {
    const { plan = null, bench = null, base = null, edited = null } = this.state ?? {};
    this.inspector.show(this.cell, plan, bench, edited ?? base, base?.id ?? null);
  }

  private renderBusy(): void {
    const waiting = [...this.pending.values()];
    const busy = this.kernelBusy !== null || this.generating || waiting.length > 0 || this.channel === null;
    setAttr(this.node, 'data-wb-busy', String(busy));
    const computing = waiting.some(type => COMPUTES.includes(type));
    this.status.textContent = this.kernelBusy ?? (computing ? __('waiting for the kernel') : '');
    this.runButton.classList.toggle('wb-working', busy && (computing || this.kernelBusy !== null));
    this.head.openButton.disabled = waiting.includes('open');
    if (this.state === null) {
      this.renderWelcome();
    }
  }
}
