/** What went wrong, in words, until it is dismissed or something new is begun. */
import { button, h } from './dom';
import { __ } from './words';

export class Alerts {
  readonly node = h('div', { class: 'wb-errors' });

  get empty(): boolean {
    return this.node.childElementCount === 0;
  }

  clear(): void {
    this.node.replaceChildren();
  }

  /** Shows one failure in place of any other. */
  show(problem: string, remedy: string, retry?: () => void): void {
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
    this.node.replaceChildren(alert);
  }
}
