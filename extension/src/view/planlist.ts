/** The plan: its edits in order, each to be switched off or taken out, with undo and redo. */
import type { ControlRequest } from './channel';
import { button, h, setAttr } from './dom';
import type { PlanCard } from './protocol';
import { __ } from './words';

export class PlanList {
  readonly node: HTMLElement;
  private readonly list = h('ol', { class: 'wb-edits' });
  private readonly empty = h('p', { class: 'wb-note' });
  private readonly warnings = h('div', { class: 'wb-warnings' });
  private readonly hash = h('code', { class: 'wb-quiet wb-hash' });
  private readonly undo: HTMLButtonElement;
  private readonly redo: HTMLButtonElement;
  private readonly clear: HTMLButtonElement;

  constructor(private readonly send: (request: ControlRequest) => void) {
    this.undo = button(__('Undo'), 'undo', __('Undo the last change of the plan (Ctrl+Z)'), () => send({ type: 'undo' }));
    this.redo = button(__('Redo'), 'redo', __('Redo it (Ctrl+Shift+Z)'), () => send({ type: 'redo' }));
    this.clear = button(__('Clear'), 'clear', __('Remove every edit'), () => send({ type: 'clear' }));
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

  show(plan: PlanCard | null): void {
    setAttr(this.node, 'data-wb-plan', plan?.hash ?? '');
    this.hash.textContent = plan?.edits.length ? plan.hash.slice(0, 8) : '';
    this.hash.title = plan ? __('Hash of the plan: %1', plan.hash) : '';
    this.undo.disabled = !plan?.undo;
    this.redo.disabled = !plan?.redo;
    this.clear.disabled = !plan?.edits.length;
    this.empty.hidden = !!plan?.edits.length;
    this.list.replaceChildren(
      ...(plan?.edits ?? []).map((edit, index) => {
        const version = plan!.version;
        const box = h('input', {
          attrs: { type: 'checkbox', 'aria-label': __('Enabled: %1', edit.text) },
          on: { change: () => this.send({ type: 'enable', version, index, enabled: box.checked }) }
        });
        box.checked = edit.enabled;
        const remove = button('×', 'remove', __('Remove: %1', edit.text), () =>
          this.send({ type: 'remove', version, index })
        );
        setAttr(remove, 'aria-label', __('Remove: %1', edit.text));
        return h(
          'li',
          { attrs: { 'data-wb-edit': edit.kind, 'data-wb-enabled': String(edit.enabled) } },
          h('label', { class: 'wb-edit' }, box, h('span', { text: edit.text })),
          remove
        );
      })
    );
    this.warnings.replaceChildren(
      ...(plan?.warnings ?? []).map(text => h('p', { class: 'wb-warning', text, attrs: { role: 'status' } }))
    );
  }
}
