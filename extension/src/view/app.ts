/** The whole panel: state from the kernel in, requests out. Knows a `Channel` and the page, and nothing of Jupyter. */
import { Changed } from './changed';
import { type Channel, type ComputeRequest, type ControlRequest, type Lane, PROTOCOL } from './channel';
import { h, setAttr, setText } from './dom';
import { save } from './files';
import { Frames } from './frames';
import { type HopedPlan, changesPlan, hope } from './hopes';
import { onKey } from './keys';
import type { Place } from './map';
import type { Colour } from './mapdata';
import { Parts } from './parts';
import type { BenchCard, Failure, Inspection, Reply, State } from './protocol';
import { Requests } from './requests';
import { Sight } from './sight';
import { welcome } from './welcome';
import { __, told } from './words';

/** Steps asked for at a time: the model does not wait for the page. */
const AHEAD = 2;

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

export class App {
  readonly node: HTMLElement;
  private readonly parts: Parts;
  private options: Options | null = null;
  private preferences: Preferences = { colour: 'expert', scope: 'all', link: null };
  private readonly requests = new Requests();
  private readonly frames = new Frames();
  private readonly sight: Sight;
  private state: State | null = null;
  private cell: Inspection | null = null;
  private kernelBusy: string | null = null;
  private asked = -1;
  private opened: string | null | undefined;
  private resume: Memory | null = null;
  private generating = false;
  /** Steps that have been asked for and not come. */
  private readonly steps = new Set<number>();
  /** What has been asked of which version of the plan and not answered, by number. */
  private readonly hopes = new Map<number, { request: ControlRequest; version: number }>();
  private readonly remembered = new Changed();
  private query: string | null = null;
  private visible = true;

  constructor() {
    const control = (request: ControlRequest): number => this.request(request);
    const compute = (request: ComputeRequest): number => this.send('compute', request);
    this.parts = new Parts({
      control,
      compute,
      run: () => this.run(),
      open: model => this.open(model),
      generate: on => this.generate(on),
      flip: () => this.flip(),
      select: place => this.select(place),
      place: () => this.state?.selected ?? { layer: 0, position: 0 },
      turned: key => this.turnTo(key),
      link: () => this.preferences.link,
      fail: (problem, remedy) => this.fail(problem, remedy)
    });
    const keys = { undo: () => control({ type: 'undo' }), redo: () => control({ type: 'redo' }), flip: () => this.flip() };
    this.node = h(
      'div',
      {
        class: 'wb-panel',
        attrs: { 'data-wb-panel': '', 'data-wb-busy': 'true', 'data-wb-view-now': 'map' },
        on: { keydown: event => onKey(event, keys) }
      },
      ...this.parts.nodes
    );
    this.sight = new Sight(this.node, visible => this.watch(visible));
    this.render();
  }

  /** Talks to a kernel; called again after a restart. */
  connect(channel: Channel, options: Options): void {
    this.requests.use(channel);
    this.options = options;
    this.asked = -1;
    this.opened = undefined;
    this.kernelBusy = null;
    this.generating = false;
    this.steps.clear();
    this.hopes.clear();
    this.resume = this.memory();
    channel.listen(letters => {
      letters.forEach(({ message, buffers }) => this.receive(message, buffers));
      this.frames.later('busy', () => this.renderBusy()); // the last: what is not busy has been drawn
      this.frames.draw();
    });
    this.send('control', { type: 'hello', protocol: PROTOCOL, version: options.version });
    if (!this.visible) {
      this.send('control', { type: 'watch', visible: false });
    }
  }

  /** The kernel is away: nothing can be sent until the next `connect`. */
  disconnect(why: string): void {
    this.resume = this.memory();
    this.requests.use(null);
    this.generating = false;
    this.steps.clear();
    this.hopes.clear();
    this.kernelBusy = why;
    this.renderBusy();
  }

  /** The view is taken off the page for good. */
  dispose(): void {
    this.sight.dispose();
    this.parts.experiments.opened(false);
  }

  /** Tells the kernel whether anybody can see the panel. */
  private watch(visible: boolean): void {
    this.visible = visible;
    if (!visible) {
      this.generate(false);
    }
    if (this.requests.connected) {
      this.send('control', { type: 'watch', visible });
    }
    this.parts.experiments.opened(visible && this.parts.tabs.current === 'experiments');
  }

  /** Takes up what an earlier view had kept. */
  recall(memory: Memory): void {
    this.resume = memory;
    this.parts.prompt.value = memory.prompt;
  }

  /** Takes up what a person has set. */
  prefer(preferences: Preferences): void {
    this.preferences = preferences;
    this.parts.inspector.actOn(preferences.scope);
    this.parts.card.prefer(preferences.colour);
    this.parts.sql.offerLink();
  }

  /** Turns to the query box with `sql` in it, not yet asked. */
  ask(sql: string): void {
    this.query = this.state ? null : sql; // a panel that is still opening shows it once it has a model
    this.parts.tabs.choose('sql');
    this.parts.sql.fill(sql);
  }

  /** Draws again with the colours of the theme. */
  restyle(): void {
    this.parts.card.restyle();
    this.parts.charts.restyle();
    this.parts.sql.restyle();
    this.parts.inspector.restyle();
  }

  /** Takes the keys, unless a part of the panel has them: the page must not move under a pointer that is pressing. */
  focus(): void {
    if (!this.node.contains(document.activeElement)) {
      this.parts.prompt.node.focus({ preventScroll: true });
    }
  }

  fail(problem: string, remedy: string, retry?: () => void): void {
    this.parts.alerts.show(problem, remedy, retry);
  }

  /** Another view has come onto the screen. */
  private turnTo(key: string): void {
    setAttr(this.node, 'data-wb-view-now', key);
    this.parts.experiments.opened(key === 'experiments' && this.state !== null && this.visible);
    if (this.requests.connected && this.state) {
      this.parts.charts.opened(key === 'charts');
      if (key === 'compare') {
        this.parts.compare.opened();
      } else if (key === 'runs') {
        this.parts.runs.ask();
      } else if (key === 'sql') {
        this.parts.sql.opened();
      }
    }
  }

  private send(lane: Lane, request: ControlRequest | ComputeRequest): number {
    const seq = this.requests.send(lane, request);
    if (seq === undefined) {
      this.fail(__('The panel has no kernel.'), __('Wait for it to come back, or start it from the Kernel menu.'));
      return -1;
    }
    this.renderBusy();
    return seq;
  }

  /** Sends a request of the control lane. What it asks of the plan is on the screen at once, marked as not yet granted. */
  private request(request: ControlRequest): number {
    const seq = this.send('control', request);
    const plan = this.plan;
    if (seq >= 0 && plan && changesPlan(request)) {
      this.hopes.set(seq, { request, version: plan.version });
      this.frames.later('plan', () => this.renderPlan());
      this.frames.draw();
    }
    return seq;
  }

  /** The plan as it will be if everything that was asked is granted. */
  private get plan(): HopedPlan | null {
    if (!this.state) {
      return null;
    }
    const held: HopedPlan = this.state.plan;
    // A later version than was spoken of: it has been granted, although the kernel is not done with it.
    const open = [...this.hopes.values()].filter(({ version }) => version >= held.version);
    return open.reduce((plan, { request }) => hope(plan, request), held);
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
        this.frames.later('map', () => {
          this.parts.card.take(message, buffers);
          this.parts.card.show(this.state);
          this.parts.strip.show(this.parts.card.data, this.state?.selected?.position);
        });
        break;
      case 'cell':
        this.cell = message;
        this.frames.later('cell', () => this.renderCell());
        break;
      case 'next':
        this.frames.later('next', () => this.parts.next.show(message));
        break;
      case 'busy':
        this.kernelBusy = message.what && told(message.what);
        this.parts.progress.hidden = message.share === null;
        this.parts.progress.value = message.share ?? 0;
        break;
      case 'file':
        save(message.name, buffers[0] as DataView<ArrayBuffer>, message.mime);
        break;
      case 'done':
        this.finished(message.seq);
        break;
      case 'error':
        this.showFailure(message);
        break;
      default:
        this.parts.take(message, buffers);
    }
  }

  private showFailure(message: Failure): void {
    const type = this.requests.kind(message.seq);
    if (this.requests.ofQuery(type)) {
      this.parts.sql.fail(told(message.problem), told(message.remedy));
      return;
    }
    this.fail(told(message.problem), told(message.remedy));
    this.generate(false);
    if (type === 'open') {
      this.opened = undefined;
      this.render();
    }
  }

  private finished(seq: number): void {
    const type = this.requests.finish(seq);
    if (this.hopes.delete(seq)) {
      this.frames.later('plan', () => this.renderPlan());
    }
    this.parts.card.finished(seq);
    this.parts.sql.finished(seq);
    if (this.steps.delete(seq) && this.generating) {
      if (this.state?.live?.ended) {
        this.generate(false);
      } else {
        this.askSteps();
      }
    }
    if ((type === 'run' || type === 'recompute') && this.parts.tabs.current === 'runs' && this.visible) {
      this.parts.runs.ask();
    }
  }

  /** Goes on generating, or stops after the token under way. */
  private generate(on: boolean): void {
    const begins = on && !this.generating;
    this.generating = on && this.requests.connected;
    if (begins) {
      this.parts.alerts.clear();
      this.askSteps();
    } else if (!on && this.requests.connected) {
      this.steps.forEach(request => this.send('control', { type: 'cancel', request }));
    }
    this.parts.live.show(this.state, this.generating);
    this.renderBusy();
  }

  /** Each token is asked for by itself, so that whatever else waits for the model comes in between. */
  private askSteps(): void {
    while (this.generating && this.steps.size < AHEAD) {
      this.steps.add(this.send('compute', { type: 'step', ahead: this.steps.size > 0 }));
    }
  }

  /** Shows the map of the other side: base for edited, and back. */
  private flip(): void {
    if (this.state?.edited && this.parts.card.data) {
      this.send('control', { type: 'side', base: this.parts.card.data.edited });
    }
  }

  private showBenches(benches: BenchCard[], current: string | null): void {
    this.parts.head.showBenches(benches, current);
    if (!current) {
      this.clear();
      if (this.options?.openDemo && this.opened === undefined && this.parts.alerts.empty) {
        const memory = this.resume;
        this.open(memory?.model ?? null, memory);
      }
    }
    this.render();
  }

  private clear(): void {
    this.frames.clear();
    this.hopes.clear();
    this.state = null;
    this.cell = null;
    this.parts.card.take(null);
    this.parts.next.show(null);
    this.parts.inspector.take(null);
    this.parts.compare.take(null);
  }

  private takeState(state: State): void {
    this.parts.live.take(state.live);
    const other = state.bench.key !== this.state?.bench.key;
    const shown = state.base?.past && state.base.id !== this.state?.base?.id;
    if (other) {
      this.clear();
    }
    if ((other && (state.prompt || !this.parts.prompt.value)) || shown) {
      this.parts.prompt.value = state.prompt;
      this.parts.prompt.grow();
    }
    this.state = state;
    if (state.base?.past) {
      this.parts.next.show(null);
    }
    if (state.stale && this.asked !== state.plan.version) {
      this.asked = state.plan.version;
      this.send('compute', { type: 'recompute' });
    }
    const memory = this.memory();
    if (memory && this.remembered.by(memory)) {
      this.options?.remember?.(memory);
    }
    this.parts.next.moved(state.selected);
    if (other) {
      this.render();
      this.parts.prompt.grow();
      this.turnTo(this.parts.tabs.current);
      if (this.query !== null) {
        this.ask(this.query);
      }
    } else {
      this.frames.later('state', () => this.renderState());
    }
  }

  private memory(): Memory | null {
    return this.state
      ? { model: this.opened ?? this.resume?.model ?? null, prompt: this.state.prompt, plan: this.state.plan.text }
      : this.resume;
  }

  private open(model: string | null, memory: Memory | null = null): void {
    this.opened = model;
    this.generate(false);
    this.parts.alerts.clear();
    const keep = memory?.prompt ? { prompt: memory.prompt, plan: memory.plan } : { prompt: '', plan: null };
    this.send('compute', { type: 'open', model, ...keep });
  }

  private run(): void {
    this.generate(false);
    this.parts.inspector.take(null);
    this.parts.alerts.clear();
    this.send('compute', { type: 'run', prompt: this.parts.prompt.value });
  }

  private select(place: Place): void {
    this.parts.strip.show(this.parts.card.data, place.position);
    this.send('control', { type: 'select', ...place });
  }

  // --- drawing ------------------------------------------------------------------------------------------------------

  private render(): void {
    this.parts.body.hidden = this.state === null;
    this.renderWelcome();
    this.renderState();
    this.renderBusy();
  }

  private renderWelcome(): void {
    this.parts.welcome.hidden = this.state !== null;
    const opening = this.requests.opening || this.options === null;
    this.parts.welcome.replaceChildren(...welcome(opening, this.options?.openDemo ?? false));
  }

  private renderState(): void {
    const state = this.state;
    this.parts.live.show(state, this.generating);
    this.parts.head.show(state?.bench ?? null);
    this.parts.card.show(state);
    this.parts.charts.show(state);
    this.parts.compare.show(state);
    const run = state?.edited ?? state?.base;
    this.parts.sql.show(run && state?.base ? { run: run.id, base: state.base.id } : null);
    this.parts.runs.mark([state?.base?.id, state?.edited?.id].filter(id => id !== undefined));
    this.renderPlan();
    this.parts.strip.show(this.parts.card.data, state?.selected?.position);
  }

  private renderPlan(): void {
    this.parts.planList.show(this.plan);
    this.renderCell();
  }

  private renderCell(): void {
    const { bench = null, base = null, edited = null } = this.state ?? {};
    this.parts.inspector.show(this.cell, this.plan, bench, edited ?? base, base?.id ?? null);
  }

  private renderBusy(): void {
    const { computing, waiting, connected, opening } = this.requests;
    const busy = this.kernelBusy !== null || this.generating || waiting || !connected;
    setAttr(this.node, 'data-wb-busy', String(busy));
    setText(this.parts.status, this.kernelBusy ?? (computing ? __('waiting for the kernel') : ''));
    this.parts.runButton.classList.toggle('wb-working', busy && (computing || this.kernelBusy !== null));
    // A text that grows is sign enough: an animation costs a frame sixty times a second, also of one that changes little.
    const grows = !!this.state?.live && !this.state.live.ended && !computing; // by the panel, or by a cell of a notebook
    this.parts.runButton.classList.toggle('wb-steady', this.generating || grows);
    this.parts.head.openButton.disabled = opening;
    if (this.state === null) {
      this.renderWelcome();
    }
  }
}
