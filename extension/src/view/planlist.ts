/** The plan: its edits in order, each to be switched off or taken out, with undo and redo. */
import { Changed } from './changed';
import type { ComputeRequest, ControlRequest } from './channel';
import { button, choice, h, setAttr } from './dom';
import { save } from './files';
import type { EditForm } from './forms';
import type { HopedPlan } from './hopes';
import type { Effects } from './protocol';
import { digits } from './scale';
import { __, told } from './words';

export class PlanList {
  readonly node: HTMLElement;
  private readonly list = h('ol', { class: 'wb-edits' });
  private readonly empty = h('p', { class: 'wb-note' });
  private readonly warnings = h('div', { class: 'wb-warnings' });
  private readonly hash = h('code', { class: 'wb-quiet wb-hash' });
  private readonly undo: HTMLButtonElement;
  private readonly redo: HTMLButtonElement;
  private readonly clear: HTMLButtonElement;
  private readonly copy: HTMLButtonElement;
  private readonly save: HTMLButtonElement;
  private readonly kept: HTMLSelectElement;
  private readonly keep: HTMLButtonElement;
  private readonly forget: HTMLButtonElement;
  private readonly name: HTMLInputElement;
  private readonly effect: HTMLButtonElement;
  private plan: HopedPlan | null = null;
  private effects: Effects | null = null;
  private readonly changed = new Changed();

  constructor(
    private readonly send: (request: ControlRequest) => void,
    compute: (request: ComputeRequest) => void,
    private readonly form: EditForm,
    private readonly fail: (problem: string, remedy: string) => void
  ) {
    const add = button(__('Add edit…'), 'form', __('A form for every kind of edit'), () => form.open('reroute.ban'));
    this.effect = button(__('Effects'), 'effects', __('What each edit does: run the prompt again without it'), () => compute({ type: 'effects_of' }));
    this.name = h('input', {
      class: 'wb-input wb-short',
      attrs: { 'aria-label': __('Name to keep the plan under'), placeholder: __('name') },
      on: {
        input: () => (this.keep.disabled = !this.name.value.trim()),
        keydown: event => {
          if (event.key === 'Enter') {
            this.keep.click();
          }
        }
      }
    });
    this.keep = button(__('Keep'), 'keep', __('Keep this plan under a name and go on from it'), () => {
      send({ type: 'keep', name: this.name.value });
      this.name.value = '';
      this.keep.disabled = true;
    });
    this.kept = choice(__('Kept plans'), [], value => {
      if (value) {
        send({ type: 'recall', name: value });
      }
      this.forget.disabled = !value;
    });
    this.forget = button('×', 'forget', __('Forget the kept plan'), () => send({ type: 'forget', name: this.kept.value }));
    setAttr(this.forget, 'aria-label', __('Forget the kept plan'));
    this.undo = button(__('Undo'), 'undo', __('Undo the last change of the plan (Ctrl+Z)'), () => send({ type: 'undo' }));
    this.redo = button(__('Redo'), 'redo', __('Redo it (Ctrl+Shift+Z)'), () => send({ type: 'redo' }));
    this.clear = button(__('Clear'), 'clear', __('Remove every edit'), () => send({ type: 'clear' }));
    this.copy = button(__('Copy Python'), 'copy', __('Copy the plan as Python code'), () => this.toClipboard());
    this.save = button(__('Save'), 'save', __('Save the plan as a JSON file'), () => this.download());
    const file = h('input', {
      attrs: { type: 'file', accept: '.json,application/json', 'aria-label': __('Plan file'), tabindex: '-1', hidden: true },
      on: { change: () => this.upload(file) }
    });
    const load = button(__('Load'), 'load', __('Load a plan from a JSON file, in the place of this one'), () => file.click());
    this.empty.textContent = __('No edits: the model routes as it was trained to. Ban or force an expert to change its mind.');
    this.node = h(
      'section',
      { class: 'wb-card wb-plan', attrs: { 'aria-label': __('Plan') } },
      h(
        'div',
        { class: 'wb-row' },
        h('h3', { class: 'wb-title', text: __('Plan') }),
        this.hash,
        h('span', { class: 'wb-grow' }),
        this.undo,
        this.redo,
        this.clear
      ),
      h('div', { class: 'wb-row wb-plan-files' }, add, this.effect, this.copy, this.save, load, file, this.name, this.keep, this.kept, this.forget),
      form.node,
      h(
        'div',
        { class: 'wb-plan-body', attrs: { tabindex: '0', role: 'group', 'aria-label': __('Edits') } },
        this.empty,
        this.warnings,
        this.list
      )
    );
    this.show(null);
  }

  /** What leaving out each edit has changed. */
  take(effects: Effects): void {
    this.effects = effects;
    this.show(this.plan);
  }

  show(plan: HopedPlan | null): void {
    this.plan = plan;
    this.form.show(plan);
    if (!this.changed.by(plan, this.effects)) {
      return;
    }
    const kept = plan?.kept ?? [];
    if (kept.join('\n') !== [...this.kept.options].slice(1).map(option => option.value).join('\n')) {
      this.kept.replaceChildren(
        h('option', { text: __('kept plans…'), attrs: { value: '' } }),
        ...kept.map(name => h('option', { text: name, attrs: { value: name } }))
      );
      this.forget.disabled = true;
    }
    this.kept.hidden = this.forget.hidden = !kept.length;
    this.keep.disabled = !this.name.value.trim();
    this.effect.disabled = !plan?.edits.some(edit => edit.enabled);
    const effects = this.effects?.version === plan?.version ? this.effects : null;
    const most = Math.max(1e-12, ...(effects?.rows ?? []).map(row => row.kl));
    this.copy.disabled = this.save.disabled = !plan?.edits.length;
    setAttr(this.node, 'data-wb-plan', plan?.hash ?? '');
    setAttr(this.node, 'data-wb-pending', plan?.pending ? 'true' : undefined);
    this.hash.textContent = plan?.pending ? __('asked…') : plan?.edits.length ? plan.hash.slice(0, 8) : '';
    this.hash.title = plan?.pending ? __('The kernel has not answered yet') : plan ? __('Hash of the plan: %1', plan.hash) : '';
    this.undo.disabled = !plan?.undo;
    this.redo.disabled = !plan?.redo;
    this.clear.disabled = !plan?.edits.length;
    this.empty.hidden = !!plan?.edits.length;
    this.list.replaceChildren(
      ...(plan?.edits ?? []).map((edit, index) => {
        const version = plan!.version;
        const text = told(edit.text);
        const box = h('input', {
          attrs: { type: 'checkbox', 'aria-label': __('Enabled: %1', text) },
          on: { change: () => this.send({ type: 'enable', version, index, enabled: box.checked }) }
        });
        box.checked = edit.enabled;
        const last = plan!.edits.length - 1;
        const move = (label: string, action: string, to: number, title: string): HTMLButtonElement => {
          const node = button(label, action, title, () => this.send({ type: 'move', version, index, to }));
          setAttr(node, 'aria-label', title);
          node.disabled = to < 0 || to > last;
          return node;
        };
        const remove = button('×', 'remove', __('Remove: %1', text), () =>
          this.send({ type: 'remove', version, index })
        );
        setAttr(remove, 'aria-label', __('Remove: %1', text));
        const change = button('…', 'change', __('Change: %1', text), () => this.form.edit(index));
        setAttr(change, 'aria-label', __('Change: %1', text));
        const found = effects?.rows.find(row => row.index === index);
        const bar = h('span', { class: 'wb-effect-bar' });
        bar.style.width = `${((40 * (found?.kl ?? 0)) / most).toFixed(1)}px`;
        return h(
          'li',
          {
            class: edit.pending ? 'wb-pending' : '',
            attrs: { 'data-wb-edit': edit.kind, 'data-wb-enabled': String(edit.enabled), 'data-wb-effect': found ? String(found.kl) : undefined }
          },
          h('label', { class: 'wb-edit' }, box, h('span', { text })),
          found
            ? h(
                'span',
                {
                  class: 'wb-number wb-quiet wb-effect',
                  title: __('KL to the plan without this edit: mean %1, last token %2 nats%3', digits(found.kl), digits(found.last), found.changed ? __('; the likeliest next token is another one') : '')
                },
                bar,
                `${digits(found.kl, 2)}${found.changed ? ' ≠' : ''}`
              )
            : null,
          change,
          last ? move('↑', 'up', index - 1, __('Earlier: %1', text)) : null,
          last ? move('↓', 'down', index + 1, __('Later: %1', text)) : null,
          remove
        );
      })
    );
    this.warnings.replaceChildren(
      ...(plan?.warnings ?? []).map(line => h('p', { class: 'wb-warning', text: told(line), attrs: { role: 'status' } }))
    );
  }

  private async toClipboard(): Promise<void> {
    try {
      await navigator.clipboard.writeText(`import workbench as wb\n\nplan = ${this.plan?.python ?? ''}\n`);
      this.copy.textContent = __('Copied');
      window.setTimeout(() => (this.copy.textContent = __('Copy Python')), 1500);
    } catch {
      this.fail(__('The browser does not let this page write to the clipboard.'), __('Save the plan as a file instead.'));
    }
  }

  private download(): void {
    save(`plan-${this.plan?.hash.slice(0, 8) ?? ''}.json`, this.plan?.text ?? '', 'application/json');
  }

  private async upload(file: HTMLInputElement): Promise<void> {
    const chosen = file.files?.[0];
    if (chosen) {
      this.send({ type: 'load', plan: await chosen.text() });
    }
    file.value = ''; // so that the same file can be chosen again
  }
}
