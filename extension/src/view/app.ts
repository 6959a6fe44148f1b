/** The whole panel: state from the kernel in, requests out. Knows a `Channel` and the page, and nothing of Jupyter. */
import { type Channel, type ComputeRequest, type ControlRequest, type Lane, PROTOCOL } from './channel';
import { button, h, setAttr, shown } from './dom';
import { Inspector, choice } from './inspector';
import { type Place, RoutingMapView } from './map';
import { type Colour, MapData } from './mapdata';
import { MapLegend } from './legend';
import { MapTable } from './maptable';
import { NextTable } from './next';
import { PlanList } from './planlist';
import type { BenchCard, Failure, Inspection, NextTokens, Reply, State } from './protocol';
import { __ } from './words';

export interface Options {
  /** The version of the package that this view was built with. */
  version: string;
  /** Whether to open the demo model where the kernel has no bench (a kernel of the panel's own). */
  openDemo: boolean;
  /** A place to keep what must survive a restart of the kernel. */
  remember?: (memory: Memory) => void;
}

/** What a restarted kernel needs to go on where it was. */
export interface Memory {
  model: string | null;
  prompt: string;
  plan: string;
}

const EXAMPLE = 'The capital of France is';

export class App {
  readonly node: HTMLElement;
  private readonly map: RoutingMapView;
  private readonly legend = new MapLegend();
  private readonly table = new MapTable();
  private readonly inspector: Inspector;
  private readonly planList: PlanList;
  private readonly next: NextTable;
  private readonly prompt: HTMLTextAreaElement;
  private readonly runButton: HTMLButtonElement;
  private readonly status = h('span', { class: 'wb-status', attrs: { role: 'status' } });
  private readonly model = h('div', { class: 'wb-model' });
  private readonly picker: HTMLSelectElement;
  private readonly source: HTMLInputElement;
  private readonly openButton: HTMLButtonElement;
  private readonly errors = h('div', { class: 'wb-errors' });
  private readonly strip = h('div', { class: 'wb-strip', attrs: { 'aria-label': __('Tokens'), role: 'group' } });
  private readonly runLabel = h('span', { class: 'wb-quiet wb-run' });
  private readonly colours: HTMLSelectElement;
  private readonly welcome: HTMLElement;
  private readonly body: HTMLElement;
  private channel: Channel | null = null;
  private options: Options | null = null;
  private seq = 0;
  private readonly pending = new Map<number, string>();
  private state: State | null = null;
  private data: MapData | null = null;
  private cell: Inspection | null = null;
  private colour: Colour = 'expert';
  private kernelBusy: string | null = null;
  private asked = -1;
  private opened: string | null | undefined;
  private resume: Memory | null = null;

  constructor() {
    const control = (request: ControlRequest): void => this.send('control', request);
    this.map = new RoutingMapView(place => this.select(place));
    this.inspector = new Inspector(control);
    this.planList = new PlanList(control);
    this.next = new NextTable(position => control({ type: 'next', position }));
    this.prompt = h('textarea', {
      class: 'wb-input wb-prompt',
      attrs: {
        'data-wb-prompt': '',
        rows: '2',
        spellcheck: 'false',
        'aria-label': __('Prompt'),
        placeholder: __('Type a prompt, for instance: %1', EXAMPLE)
      },
      on: { keydown: event => this.promptKey(event), input: () => this.grow() }
    });
    this.runButton = button(__('Run'), 'run', __('Run the prompt (Enter; Shift+Enter for a new line)'), () => this.run());
    this.runButton.classList.add('wb-primary');
    this.picker = choice(__('Bench'), [], key => control({ type: 'use', key }));
    this.source = h('input', {
      class: 'wb-input',
      attrs: { 'aria-label': __('Model to open'), placeholder: __('folder or hub id; empty: the demo model'), spellcheck: 'false', autocomplete: 'off' },
      on: {
        keydown: event => {
          if (event.key === 'Enter') {
            this.open(this.source.value.trim() || null);
          }
        }
      }
    });
    this.openButton = button(__('Open'), 'open', __('Open this model in the kernel'), () =>
      this.open(this.source.value.trim() || null)
    );
    this.colours = choice(__('Colour by'), [], value => this.colourBy(value as Colour));
    this.welcome = h('section', { class: 'wb-card wb-welcome' });
    this.body = this.layout();
    this.node = h(
      'div',
      {
        class: 'wb-panel',
        attrs: { 'data-wb-panel': '', 'data-wb-busy': 'true' },
        on: { keydown: event => this.key(event) }
      },
      h(
        'div',
        { class: 'wb-head' },
        this.model,
        this.picker,
        h('span', { class: 'wb-grow' }),
        h('div', { class: 'wb-open' }, this.source, this.openButton)
      ),
      this.errors,
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
    this.resume = this.memory();
    channel.listen((message, buffers) => this.receive(message, buffers));
    this.send('control', { type: 'hello', protocol: PROTOCOL, version: options.version });
  }

  /** The kernel is away: nothing can be sent until the next `connect`. */
  disconnect(why: string): void {
    this.resume = this.memory();
    this.channel = null;
    this.kernelBusy = why;
    this.renderBusy();
  }

  /** Tells the kernel whether anybody can see the panel. */
  watch(visible: boolean): void {
    if (this.channel) {
      this.send('control', { type: 'watch', visible });
    }
  }

  /** Takes up what an earlier view had kept. */
  recall(memory: Memory): void {
    this.resume = memory;
    this.prompt.value = memory.prompt;
  }

  /** Draws again with the colours of the theme. */
  restyle(): void {
    this.map.draw();
    this.legend.show(this.data, this.colour);
  }

  focus(): void {
    this.prompt.focus();
  }

  fail(problem: string, remedy: string, retry?: () => void): void {
    const close = (): void => alert.remove();
    const alert = h(
      'div',
      { class: 'wb-error', attrs: { role: 'alert', 'data-wb-error': problem } },
      h('span', { class: 'wb-error-mark', text: '!', attrs: { 'aria-hidden': 'true' } }),
      h('div', { class: 'wb-grow' }, h('strong', { text: problem }), ' ', h('span', { text: remedy })),
      retry
        ? button(__('Try again'), 'retry', __('Try again'), () => {
            close();
            retry();
          })
        : null,
      button('×', 'dismiss', __('Dismiss'), close)
    );
    alert.lastElementChild!.setAttribute('aria-label', __('Dismiss'));
    this.errors.replaceChildren(alert);
  }

  private layout(): HTMLElement {
    const zoom = (label: string, action: string, title: string, factor: number): HTMLButtonElement => {
      const node = button(label, action, title, () => this.map.zoomBy(factor));
      node.setAttribute('aria-label', title);
      return node;
    };
    const mapCard = h(
      'section',
      { class: 'wb-card wb-map-card', attrs: { 'aria-label': __('Routing map') } },
      h(
        'div',
        { class: 'wb-row' },
        h('h3', { class: 'wb-title', text: __('Routing map') }),
        h('label', { class: 'wb-label' }, __('Colour'), ' ', this.colours),
        zoom('−', 'zoom-out', __('Zoom out (−)'), 0.8),
        zoom('↔', 'fit', __('Fit to width (0)'), 0),
        zoom('+', 'zoom-in', __('Zoom in (+)'), 1.25),
        h('span', { class: 'wb-grow' }),
        this.runLabel
      ),
      this.map.node,
      this.legend.node,
      this.table.node
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
          h('div', { class: 'wb-row wb-prompt-row' }, this.prompt, this.runButton),
          h('div', { class: 'wb-row' }, this.strip, this.status)
        ),
        mapCard,
        this.next.node
      ),
      h('div', { class: 'wb-right' }, this.planList.node, this.inspector.node)
    );
  }

  private send(lane: Lane, request: ControlRequest | ComputeRequest): void {
    if (!this.channel) {
      this.fail(__('The panel has no kernel.'), __('Wait for it to come back, or start it from the Kernel menu.'));
      return;
    }
    const seq = ++this.seq;
    // Neither a farewell nor a receipt changes anything that somebody could wait for.
    if (request.type !== 'watch' && request.type !== 'seen') {
      this.pending.set(seq, request.type);
    }
    this.channel.send(lane, { ...request, seq });
    this.renderBusy();
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
        this.data = new MapData(message, buffers);
        this.send('control', { type: 'seen' });
        this.renderMap();
        break;
      case 'cell':
        this.cell = message;
        this.renderCell();
        break;
      case 'next':
        this.showNext(message);
        break;
      case 'busy':
        this.kernelBusy = message.what;
        break;
      case 'done':
        this.pending.delete(message.seq);
        break;
      case 'error':
        this.showFailure(message);
        break;
    }
    this.renderBusy();
  }

  private showFailure(message: Failure): void {
    this.fail(message.problem, message.remedy);
    if (message.seq !== null && this.pending.get(message.seq) === 'open') {
      this.opened = undefined;
      this.render();
    }
  }

  private showNext(message: NextTokens): void {
    this.next.show(message);
  }

  private showBenches(benches: BenchCard[], current: string | null): void {
    this.picker.replaceChildren(
      ...benches.map(bench =>
        h('option', {
          text: bench.variables.length ? `${bench.variables.join(', ')} · ${brief(bench.name)}` : brief(bench.name),
          attrs: { value: bench.key }
        })
      )
    );
    this.picker.hidden = benches.length < 2;
    if (current) {
      this.picker.value = current;
    } else {
      this.clear();
      if (this.options?.openDemo && this.opened === undefined && !this.errors.childElementCount) {
        const memory = this.resume;
        this.open(memory?.model ?? null, memory);
      }
    }
    this.render();
  }

  private clear(): void {
    this.state = null;
    this.data = null;
    this.cell = null;
    this.next.show(null);
  }

  private takeState(state: State): void {
    const other = state.bench.key !== this.state?.bench.key;
    if (other) {
      this.clear();
      if (state.prompt || !this.prompt.value) {
        this.prompt.value = state.prompt;
      }
    }
    this.state = state;
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
      this.grow();
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
    this.errors.replaceChildren();
    const keep = memory?.prompt ? { prompt: memory.prompt, plan: memory.plan } : { prompt: '', plan: null };
    this.send('compute', { type: 'open', model, ...keep });
  }

  private run(): void {
    this.errors.replaceChildren();
    this.send('compute', { type: 'run', prompt: this.prompt.value });
  }

  private select(place: Place): void {
    this.renderStrip(place.position);
    this.send('control', { type: 'select', ...place });
  }

  private colourBy(colour: Colour): void {
    this.colour = colour;
    this.colours.value = colour;
    this.map.colourBy(colour);
    this.legend.show(this.data, colour);
    this.table.show(this.data, colour);
  }

  private promptKey(event: KeyboardEvent): void {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      event.stopPropagation();
      this.run();
    }
  }

  private key(event: KeyboardEvent): void {
    const typing = event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
    const box = event.target instanceof HTMLInputElement && event.target.type === 'checkbox';
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z' && (!typing || box)) {
      event.preventDefault();
      event.stopPropagation();
      this.send('control', { type: event.shiftKey ? 'redo' : 'undo' });
    }
  }

  private grow(): void {
    this.prompt.style.height = 'auto';
    this.prompt.style.height = `${Math.min(160, this.prompt.scrollHeight + 2)}px`;
  }

  // --- drawing ------------------------------------------------------------------------------------------------------

  private render(): void {
    this.body.hidden = this.state === null;
    this.renderWelcome();
    this.renderState();
    this.renderMap();
    this.renderCell();
    this.renderBusy();
  }

  private renderWelcome(): void {
    this.welcome.hidden = this.state !== null;
    const opening = [...this.pending.values()].includes('open') || this.options === null;
    this.welcome.replaceChildren(
      ...(opening
        ? [h('h3', { class: 'wb-title', text: __('Opening a model…') }), h('p', { class: 'wb-note', text: __('The first time this takes a few seconds: the kernel loads torch and the weights.') })]
        : [
            h('h3', { class: 'wb-title', text: __('No bench in this kernel yet') }),
            ...(this.options?.openDemo
              ? []
              : [
                  h('p', {}, __('Run this in a cell of the notebook, and it appears here:')),
                  h('pre', { class: 'wb-code', text: 'import workbench as wb\nbench = wb.open()' })
                ]),
            h('p', {}, __('To open a model from here, name it in the field above (a local folder or a hub id; empty for the demo model) and press Open.'))
          ])
    );
  }

  private renderState(): void {
    const state = this.state;
    this.planList.show(state?.plan ?? null);
    this.inspector.show(this.cell, state?.plan ?? null, state?.bench ?? null);
    const bench = state?.bench;
    const router = bench?.moe_layers.length
      ? __('%1 layers · %2 experts, %3 per token', bench.layers, bench.experts, bench.top_k)
      : __('%1 layers · dense', bench?.layers);
    this.model.replaceChildren(
      ...(bench
        ? [
            h('strong', { class: 'wb-name', text: brief(bench.name), title: bench.name }),
            h('span', { class: 'wb-quiet', text: `${bench.model_type} · ${router}` }),
            h('span', { class: 'wb-chip', text: bench.isa ? `${bench.kernels} · ${bench.isa}` : bench.kernels, title: __('kernel backend in use') })
          ]
        : [h('strong', { text: __('Workbench') })])
    );
    const ran = state?.edited ?? state?.base;
    setAttr(this.runLabel, 'data-wb-run', ran?.id);
    setAttr(this.runLabel, 'data-wb-base', state?.base?.id);
    this.runLabel.textContent = ran ? (state?.edited ? __('edited %1', ran.id) : __('base %1', ran.id)) : '';
    this.runLabel.title = state?.edited && state.base ? __('run of the plan; the base run is %1', state.base.id) : __('run without a plan');
    this.map.select(state?.selected ?? null);
    this.renderStrip(state?.selected?.position);
  }

  private renderMap(): void {
    const colours = this.data?.colours ?? ['expert'];
    if (!colours.includes(this.colour)) {
      this.colour = colours[0]!;
    }
    const names: Record<Colour, string> = {
      expert: __('chosen expert'),
      weight: __('weight of the first expert'),
      margin: __('margin'),
      entropy: __('entropy'),
      flip: __('flip against base'),
      influence: __('block influence')
    };
    this.colours.replaceChildren(...colours.map(value => h('option', { text: names[value], attrs: { value } })));
    this.map.show(this.data);
    this.colourBy(this.colour);
    this.map.select(this.state?.selected ?? null);
    this.renderStrip(this.state?.selected?.position);
  }

  private renderCell(): void {
    this.inspector.show(this.cell, this.state?.plan ?? null, this.state?.bench ?? null);
  }

  private renderStrip(position: number | undefined): void {
    const texts = this.data?.texts ?? [];
    if (this.strip.childElementCount !== texts.length || texts.some((text, n) => this.strip.children[n]!.getAttribute('data-text') !== text)) {
      this.strip.replaceChildren(
        ...texts.map((text, n) =>
          h('span', {
            class: 'wb-chip-token',
            text: text.replace(/\r?\n/g, '⏎').replace(/\t/g, '⇥') || '∅',
            title: __('token %1 “%2”', n, shown(text)),
            attrs: { 'data-text': text },
            on: { click: () => this.select({ layer: this.state?.selected?.layer ?? 0, position: n }) }
          })
        )
      );
    }
    for (const [n, node] of [...this.strip.children].entries()) {
      node.classList.toggle('wb-on', n === position);
    }
  }

  private renderBusy(): void {
    const waiting = [...this.pending.values()];
    const busy = this.kernelBusy !== null || waiting.length > 0 || this.channel === null;
    setAttr(this.node, 'data-wb-busy', String(busy));
    const computing = waiting.some(type => type === 'run' || type === 'recompute' || type === 'open');
    this.status.textContent = this.kernelBusy ?? (computing ? __('waiting for the kernel') : '');
    this.runButton.classList.toggle('wb-working', busy && (computing || this.kernelBusy !== null));
    this.openButton.disabled = waiting.includes('open');
    if (this.state === null) {
      this.renderWelcome();
    }
  }
}

/** A model's name for a narrow place: of a folder, its last part. */
function brief(name: string): string {
  return /^(\/|[A-Za-z]:\\)/.test(name) ? `…/${name.split(/[/\\]/).filter(Boolean).pop() ?? name}` : name;
}
