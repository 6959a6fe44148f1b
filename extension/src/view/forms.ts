/** A form for any kind of edit, made from its schema, with a line that says in words what it would do. */
import type { ControlRequest } from './channel';
import { button, h, setAttr } from './dom';
import { type Definitions, type Schema, choices, hint, isBoolean, isChoice, read, words, write } from './fields';
import type { Form, Forms, PlanCard, Previewed, Sentence } from './protocol';
import { __, told } from './words';

export interface FormActions {
  /** Sends a request; its number. */
  send: (request: ControlRequest) => number;
}

interface Field {
  name: string;
  required: boolean;
  schema: Schema;
  input: HTMLInputElement | HTMLSelectElement;
}

const SCOPE = ['layers', 'tokens', 'where', 'phase', 'rows', 'steps'];
let lists = 0;

export class EditForm {
  readonly node: HTMLElement;
  private readonly kinds = h('select', { class: 'wb-select', attrs: { 'aria-label': __('Kind of edit') } });
  private readonly lead = h('p', { class: 'wb-note' });
  private readonly rest = h('div');
  private readonly more = h('details', { class: 'wb-details' }, h('summary', { text: __('More about it and its fields') }), this.rest);
  private readonly fields = h('div', { class: 'wb-fields' });
  private readonly preview = h('p', { class: 'wb-preview', attrs: { role: 'status' } });
  private readonly submit: HTMLButtonElement;
  private forms: Forms | null = null;
  private made: Field[] = [];
  private plan: PlanCard | null = null;
  private replacing: number | null = null;
  private asked = -1;
  private timer = 0;
  private given: Record<string, unknown> = {};
  private wanted: string | null = null;

  constructor(private readonly actions: FormActions) {
    this.kinds.addEventListener('change', () => this.build(this.kinds.value, this.given));
    // Pressed or by Enter: either way the browser submits the form, once.
    this.submit = button(__('Add to the plan'), 'add', '', () => undefined);
    this.submit.classList.add('wb-primary');
    this.node = h(
      'form',
      {
        class: 'wb-form',
        attrs: { 'data-wb-form': '', hidden: true },
        on: {
          submit: event => {
            event.preventDefault();
            this.add();
          },
          input: () => this.changed(),
          keydown: event => {
            if (event.key === 'Escape') {
              event.stopPropagation();
              this.close();
            }
          }
        }
      },
      h('div', { class: 'wb-row' }, h('label', { class: 'wb-label' }, __('Edit'), ' ', this.kinds)),
      this.lead,
      this.more,
      this.fields,
      this.preview,
      h('div', { class: 'wb-row' }, this.submit, button(__('Cancel'), 'cancel', __('Close the form (Escape)'), () => this.close()))
    );
    this.submit.type = 'submit';
  }

  /** What kinds there are. */
  take(forms: Forms): void {
    this.forms = forms;
    const groups = new Map<string, HTMLOptGroupElement>();
    for (const form of forms.kinds) {
      const family = form.kind.includes('.') ? form.kind.split('.')[0]! : __('other');
      let group = groups.get(family);
      if (!group) {
        group = h('optgroup', { attrs: { label: family } });
        groups.set(family, group);
      }
      group.append(h('option', { text: form.kind, attrs: { value: form.kind } }));
    }
    this.kinds.replaceChildren(...groups.values());
    if (this.wanted !== null) {
      this.build(this.wanted, this.given);
    }
  }

  show(plan: PlanCard | null): void {
    if (this.replacing !== null && plan?.version !== this.plan?.version) {
      this.close(); // the number of the edit may mean another one now
    }
    this.plan = plan;
  }

  /** Opens for a new edit, with some fields given. */
  open(kind: string, given: Record<string, unknown> = {}): void {
    this.replacing = null;
    this.begin(kind, given);
  }

  /** Opens for an edit of the plan. */
  edit(index: number): void {
    const data = this.plan?.edits[index]?.data;
    if (data) {
      this.replacing = index;
      this.begin(String(data['kind']), data);
    }
  }

  close(): void {
    this.node.hidden = true;
    this.wanted = null;
    window.clearTimeout(this.timer);
  }

  previewed(message: Previewed): void {
    if (message.seq !== this.asked) {
      return;
    }
    const refused = message.refused.length > 0;
    const said = refused ? message.refused.map(told).join(' ') : message.text ? __('Will %1.', told(message.text)) : '';
    this.say(said, refused, refused ? 'refused' : 'ready');
    this.submit.disabled = refused;
  }

  private begin(kind: string, given: Record<string, unknown>): void {
    this.node.hidden = false;
    this.wanted = kind;
    this.given = given;
    this.submit.textContent = this.replacing === null ? __('Add to the plan') : __('Change the edit');
    this.kinds.disabled = this.replacing !== null;
    if (this.forms) {
      this.build(kind, given);
    } else {
      this.preview.textContent = __('Asking the kernel what there is…');
      this.actions.send({ type: 'forms_of' });
    }
    this.node.scrollIntoView({ block: 'nearest' });
  }

  private build(kind: string, given: Record<string, unknown>): void {
    const form = this.forms?.kinds.find(one => one.kind === kind) ?? this.forms?.kinds[0];
    if (!form) {
      return;
    }
    this.wanted = form.kind;
    this.kinds.value = form.kind;
    setAttr(this.node, 'data-wb-form', form.kind);
    this.explain(form);
    const { properties, required } = form.parameters as { properties: Record<string, Schema>; required: string[] };
    // What has to be filled in comes first, the scope last.
    const order = (name: string): number => 2 * SCOPE.indexOf(name) - Number(required.includes(name));
    const names = Object.keys(properties).sort((a, b) => order(a) - order(b));
    this.fields.replaceChildren();
    this.made = names
      .filter(name => properties[name]!.const === undefined)
      .map(name => this.field(name, properties[name]!, form.hints[name], given[name], required.includes(name)));
    this.changed();
    (this.made[0]?.input ?? this.kinds).focus();
  }

  /** What the kind does, and behind a fold the rest of it and the meaning of every field. */
  private explain(form: Form): void {
    const [lead, ...rest] = form.about.map(told);
    this.lead.textContent = lead ?? '';
    this.more.open = false;
    this.rest.replaceChildren(
      ...rest.map(text => h('p', { class: 'wb-note wb-lines', text })),
      h(
        'dl',
        { class: 'wb-meanings' },
        ...Object.entries(form.hints).flatMap(([name, hint]) => [h('dt', { text: name }), h('dd', { class: 'wb-lines', text: told(hint) })])
      )
    );
  }

  private field(name: string, schema: Schema, hinted: Sentence | undefined, value: unknown, required: boolean): Field {
    const definitions = this.definitions;
    const title = name.replaceAll('_', ' ');
    const now = value === undefined ? schema.default : value;
    let input: HTMLInputElement | HTMLSelectElement;
    let list: HTMLElement | null = null;
    if (isBoolean(schema, definitions)) {
      input = h('input', { attrs: { type: 'checkbox', name } });
      input.checked = now === true;
    } else if (isChoice(schema, definitions)) {
      input = h('select', { class: 'wb-select', attrs: { name } });
      input.append(...choices(schema, definitions).map(word => h('option', { text: word, attrs: { value: word } })));
      input.value = write(now);
    } else {
      const named = words(schema, definitions);
      const id = `wb-words-${++lists}`;
      list = named.length ? h('datalist', { attrs: { id } }, ...named.map(word => h('option', { attrs: { value: word } }))) : null;
      input = h('input', {
        class: 'wb-input',
        attrs: { name, placeholder: hint(schema, definitions), autocomplete: 'off', spellcheck: 'false', list: list ? id : undefined, required }
      });
      input.value = write(now);
    }
    this.fields.append(
      h('label', { class: 'wb-field', title: hinted ? told(hinted) : '' }, h('span', { class: 'wb-label', text: title + (required ? ' *' : '') }), input, list)
    );
    return { name, required, schema, input };
  }

  private get definitions(): Definitions {
    return (this.forms?.definitions ?? {}) as Definitions;
  }

  /** The edit as it stands in the form; throws what is wrong with a field. */
  private data(): Record<string, unknown> {
    const edit: Record<string, unknown> = { kind: this.wanted };
    for (const { name, schema, input } of this.made) {
      if (input instanceof HTMLInputElement && input.type === 'checkbox') {
        edit[name] = input.checked;
        continue;
      }
      let value: unknown;
      try {
        value = read(input.value, schema, this.definitions);
      } catch (error) {
        throw new Error(__('%1: type for instance %2', name.replaceAll('_', ' '), (error as Error).message));
      }
      if (value !== undefined) {
        edit[name] = value;
      }
    }
    return edit;
  }

  /** Asks what the edit would do, once typing has paused. */
  private changed(): void {
    window.clearTimeout(this.timer);
    this.submit.disabled = true;
    const empty = this.made.filter(({ required, input }) => required && input.value.trim() === '').map(({ name }) => name);
    if (empty.length) {
      this.say(__('Still to fill in: %1.', empty.join(', ')), false, 'empty');
      return;
    }
    let edit: Record<string, unknown>;
    try {
      edit = this.data();
    } catch (error) {
      this.say((error as Error).message, true, 'refused');
      return;
    }
    setAttr(this.preview, 'data-wb-preview', 'asking');
    this.timer = window.setTimeout(() => {
      this.asked = this.actions.send({ type: 'preview', edit });
    }, 120);
  }

  private say(text: string, refused: boolean, state: string): void {
    this.preview.textContent = text;
    this.preview.classList.toggle('wb-refused', refused);
    setAttr(this.preview, 'data-wb-preview', state);
  }

  private add(): void {
    if (this.submit.disabled) {
      return;
    }
    const edit = this.data();
    if (this.replacing === null) {
      this.actions.send({ type: 'add', edit });
    } else if (this.plan) {
      const enabled = this.plan.edits[this.replacing]?.enabled ?? true;
      this.actions.send({ type: 'replace', version: this.plan.version, index: this.replacing, edit: { ...edit, enabled } });
    }
    this.close();
  }
}
