/** The panel's head: which model is in view, which others there are, and how one is opened. */
import { Changed } from './changed';
import type { ControlRequest } from './channel';
import { button, choice, h } from './dom';
import type { BenchCard, BenchFacts, Models } from './protocol';
import { __, told } from './words';

export interface HeadActions {
  control: (request: ControlRequest) => void;
  use: (key: string) => void;
  open: (model: string | null) => void;
  help: () => void;
}

let lists = 0;

export class Head {
  readonly node: HTMLElement;
  readonly openButton: HTMLButtonElement;
  private readonly model = h('div', { class: 'wb-model' });
  private readonly picker: HTMLSelectElement;
  private readonly source: HTMLInputElement;
  private readonly models: HTMLDataListElement;
  private listed = false;
  private readonly changed = new Changed();

  /** `busy` says what is going on; it has the room between the model and what can be opened. */
  constructor(actions: HeadActions, busy: HTMLElement) {
    this.picker = choice(__('Bench'), [], actions.use);
    this.picker.hidden = true;
    this.models = h('datalist', { attrs: { id: `wb-models-${++lists}` } });
    const open = (): void => actions.open(this.source.value.trim() || null);
    this.source = h('input', {
      class: 'wb-input',
      attrs: {
        'aria-label': __('Model to open'),
        placeholder: __('folder or hub id (empty: demo)'),
        spellcheck: 'false',
        autocomplete: 'off',
        list: this.models.id
      },
      on: {
        keydown: event => {
          if (event.key === 'Enter') {
            open();
          }
        },
        focus: () => {
          if (!this.listed) {
            this.listed = true;
            actions.control({ type: 'models_of' });
          }
        }
      }
    });
    this.openButton = button(__('Open'), 'open', __('Open this model in the kernel'), open);
    const help = button('?', 'help', __('Show what is where'), actions.help);
    help.setAttribute('aria-label', __('Help'));
    this.node = h(
      'div',
      { class: 'wb-head' },
      this.model,
      this.picker,
      busy,
      h('div', { class: 'wb-open' }, this.source, this.models, this.openButton, help)
    );
  }

  show(bench: BenchFacts | null): void {
    if (!this.changed.by(bench)) {
      return;
    }
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
  }

  showBenches(benches: BenchCard[], current: string | null): void {
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
    }
  }

  /** Fills the list of suggestions. */
  showModels(models: Models): void {
    this.models.replaceChildren(...models.rows.map(({ name, note }) => h('option', { text: told(note), attrs: { value: name } })));
  }
}

/** A model's name for a narrow place: of a folder, its last part. */
export function brief(name: string): string {
  return /^(\/|[A-Za-z]:\\)/.test(name) ? `…/${name.split(/[/\\]/).filter(Boolean).pop() ?? name}` : name;
}
