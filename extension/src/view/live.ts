/** Generation under the hand: step, rewind, branch, and the text with and without the plan side by side. */
import { Changed } from './changed';
import type { ComputeRequest } from './channel';
import { button, choice, h, setAttr, setText, setTitle, shown } from './dom';
import type { LiveCard, State } from './protocol';
import { walk } from './walk';
import { __ } from './words';

type Side = 'base' | 'edited';

/** One text on the page: whose tokens it shows, and which of them are marked. */
interface Column {
  node: HTMLElement;
  text: HTMLElement;
  source: Side | null;
  on: number;
  diverged: number;
}

export interface LiveActions {
  compute: (request: ComputeRequest) => void;
  /** Goes on generating, or stops after the token under way. */
  generate: (on: boolean) => void;
  /** Inspects a token. */
  select: (position: number) => void;
}

export class LiveView {
  readonly node: HTMLElement;
  private readonly generate: HTMLButtonElement;
  private readonly pause: HTMLButtonElement;
  private readonly step: HTMLButtonElement;
  private readonly rewind: HTMLButtonElement;
  private readonly branch: HTMLButtonElement;
  private readonly branches: HTMLSelectElement;
  private readonly note = h('p', { class: 'wb-note' });
  private readonly texts = h('div', { class: 'wb-live-texts' });
  private readonly columns = new Map<Side, Column>();
  /** The generated tokens of the text under the plan, and of the one without it. */
  private readonly told: Record<Side, string[]> = { edited: [], base: [] };
  /** So many of them have not changed since they were drawn. */
  private readonly drawn: Record<Side, number> = { edited: 0, base: 0 };
  private state: State | null = null;
  private readonly changed = new Changed();

  constructor(private readonly actions: LiveActions) {
    const { compute, generate } = actions;
    this.generate = button(__('Generate'), 'generate', __('Go on token by token until paused'), () => generate(true));
    this.pause = button(__('Pause'), 'pause', __('Stop after the token under way'), () => generate(false));
    this.step = button(__('Step'), 'step', __('Generate one token'), () => compute({ type: 'step' }));
    this.rewind = button(__('Rewind'), 'rewind', '', () => {
      const position = this.state?.selected?.position;
      if (position !== undefined) {
        compute({ type: 'rewind', position });
      }
    });
    this.branch = button(__('Branch'), 'branch', __('Keep this text and go on in a copy of it'), () =>
      compute({ type: 'branch' })
    );
    this.branches = choice(__('Branch in view'), [], value => compute({ type: 'timeline', index: Number(value) }));
    this.node = h(
      'section',
      { class: 'wb-card wb-live', attrs: { 'aria-label': __('Live generation') } },
      h(
        'div',
        { class: 'wb-row' },
        h('h3', { class: 'wb-title', text: __('Live') }),
        this.generate,
        this.pause,
        this.step,
        this.rewind,
        this.branch,
        this.branches
      ),
      this.note,
      this.texts
    );
  }

  /** The texts as the kernel tells them: each time what is new. */
  take(live: LiveCard | null): void {
    for (const side of ['edited', 'base'] as const) {
      const { keep, tokens } = live?.[side] ?? { keep: 0, tokens: [] };
      this.told[side].length = keep;
      this.told[side].push(...tokens);
      this.drawn[side] = Math.min(this.drawn[side], keep);
    }
  }

  show(state: State | null, generating: boolean): void {
    this.state = state;
    const live = state?.live ?? null;
    this.node.hidden = !state?.base;
    const mode = generating ? 'running' : live ? (live.ended ? 'ended' : 'paused') : '';
    setAttr(this.node, 'data-wb-live', mode);
    setAttr(this.node, 'data-wb-generated', String(live ? this.told.edited.length : 0));
    setAttr(this.node, 'data-wb-diverged', live?.diverged === null || !live ? undefined : String(live.diverged));
    this.generate.hidden = generating;
    this.pause.hidden = !generating;
    const foreign = !live && !!state?.base && state.base.model !== state.bench.name;
    this.generate.disabled = this.step.disabled = foreign || !!live?.ended;
    this.step.disabled ||= generating;
    const at = state?.selected?.position ?? -1;
    const last = live ? live.prompt_tokens + this.told.edited.length - 1 : -1;
    this.rewind.disabled = generating || !live || at < live.prompt_tokens - 1 || at >= last;
    this.rewind.title = this.rewind.disabled
      ? __('Select the token that shall be the last one, from the end of the prompt on')
      : __('Take back what follows token %1', at);
    this.branch.disabled = generating || !live;
    this.renderBranches(live?.timelines ?? [], live?.current ?? 0, generating);
    this.renderNote(state, mode, foreign);
    this.renderTexts(state);
  }

  private renderBranches(counts: number[], current: number, generating: boolean): void {
    this.branches.hidden = counts.length < 2;
    this.branches.disabled = generating;
    if (this.changed.by(counts)) {
      this.branches.replaceChildren(
        ...counts.map((count, n) =>
          h('option', { text: __('branch %1 · %2 tokens', n + 1, count), attrs: { value: String(n) } })
        )
      );
    }
    this.branches.value = String(current);
  }

  private renderNote(state: State | null, mode: string, foreign: boolean): void {
    const live = state?.live;
    const parts: string[] = [];
    if (foreign) {
      parts.push(__('This run is of another model. Press Run to read its prompt with the open one, then generate.'));
    } else if (!live) {
      parts.push(__('Generate goes on from the prompt. Edits made meanwhile act from the next token on.'));
    } else {
      parts.push(__('%1 tokens generated.', this.told.edited.length));
      if (mode === 'ended') {
        parts.push(__('The text has ended: rewind to go on from an earlier token.'));
      }
      if (live.pending) {
        parts.push(__('The plan has changed: it acts from the next token on.'));
      }
      if (live.diverged !== null) {
        parts.push(__('The two texts part at token %1 (≠).', live.diverged));
      } else if (live.base) {
        parts.push(__('The two texts agree so far.'));
      }
      if (mode === 'paused') {
        parts.push(__('Run goes back to the prompt.'));
      }
    }
    setText(this.note, parts.join(' '));
  }

  private renderTexts(state: State | null): void {
    const live = state?.live;
    const wanted: [Side, string, Side][] = [];
    if (live?.base) {
      wanted.push(['base', __('without the plan'), 'base'], ['edited', __('with the plan'), 'edited']);
    } else if (live) {
      wanted.push(['base', __('without a plan'), 'edited']);
    }
    const kept = new Set(wanted.map(([side]) => side));
    for (const [side, column] of this.columns) {
      if (!kept.has(side)) {
        column.node.remove();
        this.columns.delete(side);
      }
    }
    for (const [side, name, source] of wanted) {
      const column = this.columns.get(side) ?? this.makeColumn(side);
      setText(column.node.firstElementChild!, name);
      setAttr(column.text, 'aria-label', name);
      this.fill(column, source, live!.prompt_tokens);
      this.mark(column, (state?.selected?.position ?? -1) - live!.prompt_tokens, (live!.diverged ?? -1) - live!.prompt_tokens);
    }
    for (const side of ['edited', 'base'] as const) {
      this.drawn[side] = this.told[side].length;
    }
  }

  private makeColumn(side: Side): Column {
    const text = h('div', {
      class: 'wb-live-text',
      attrs: { tabindex: '0', role: 'group', 'data-wb-text': side },
      on: {
        keydown: event => {
          const { live, selected } = this.state ?? {};
          if (live) {
            walk(event, selected?.position ?? 0, live.prompt_tokens - 1, live.prompt_tokens + text.childElementCount - 1, this.actions.select);
          }
        }
      }
    });
    const node = h('div', { class: 'wb-live-column' }, h('div', { class: 'wb-quiet' }), text);
    const column: Column = { node, text, source: null, on: -1, diverged: -1 };
    this.columns.set(side, column);
    this.texts.append(node);
    return column;
  }

  /** Draws the tokens that are new or changed, as a text may be long and grows by one. */
  private fill(column: Column, source: Side, start: number): void {
    const { text } = column;
    const tokens = this.told[source];
    const first = column.source === source ? this.drawn[source] : 0;
    column.source = source;
    while (text.childElementCount > tokens.length) {
      text.lastElementChild!.remove();
    }
    const grown = tokens.length > text.childElementCount;
    for (let n = first; n < tokens.length; n++) {
      const token = tokens[n]!;
      let node = text.children[n] as HTMLElement | undefined;
      if (!node) {
        node = h('span', { class: 'wb-chip-token', on: { click: () => this.actions.select(start + n) } });
        text.append(node);
      }
      setText(node, token.replace(/\r?\n/g, '⏎').replace(/\t/g, '⇥') || '∅');
      setTitle(node, __('token %1 “%2”', start + n, shown(token)));
    }
    if (grown) {
      // With the frame, when the page is laid out anyway: asking here would lay it out once more for every token.
      requestAnimationFrame(() => (text.scrollTop = text.scrollHeight));
    }
  }

  /** Marks the inspected token, and the first one that differs. */
  private mark(column: Column, on: number, diverged: number): void {
    const move = (name: string, from: number, to: number): void => {
      if (from !== to) {
        column.text.children[from]?.classList.remove(name);
      }
      const node = column.text.children[to];
      if (node && !node.classList.contains(name)) {
        node.classList.add(name);
      }
    };
    move('wb-on', column.on, on);
    move('wb-diverged', column.diverged, diverged);
    column.on = on;
    column.diverged = diverged;
  }
}
