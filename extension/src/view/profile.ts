/** What an expert is for: the tokens it gets in this store, how often, and with which others. */
import { button, h, setAttr, shown } from './dom';
import type { Profile } from './protocol';
import { digits } from './scale';
import { __ } from './words';

export class ProfileCard {
  readonly node: HTMLElement;
  private readonly body = h('div');
  private wanted: { layer: number; expert: number } | null = null;

  constructor() {
    const close = button('×', 'close-profile', __('Close the profile'), () => this.close());
    setAttr(close, 'aria-label', __('Close the profile'));
    this.node = h(
      'div',
      { class: 'wb-trials wb-profile', attrs: { hidden: true } },
      h('div', { class: 'wb-row' }, this.body, h('span', { class: 'wb-grow' }), close)
    );
  }

  /** Waits for the profile of an expert. */
  want(layer: number, expert: number): void {
    this.wanted = { layer, expert };
    this.node.hidden = false;
    setAttr(this.node, 'data-wb-profile', undefined);
    this.body.replaceChildren(h('span', { class: 'wb-quiet', text: __('Reading what the store knows of expert %1 …', expert) }));
  }

  close(): void {
    this.wanted = null;
    this.node.hidden = true;
  }

  /** Hides the profile once another layer is inspected. */
  inspect(layer: number | undefined): void {
    if (this.wanted && this.wanted.layer !== layer) {
      this.close();
    }
  }

  take(told: Profile): void {
    if (told.layer !== this.wanted?.layer || told.expert !== this.wanted.expert) {
      return;
    }
    setAttr(this.node, 'data-wb-profile', `${told.layer},${told.expert}`);
    const title = h('strong', { text: __('Expert %1 of layer %2', told.expert, told.layer) });
    if (!told.count) {
      this.body.replaceChildren(title, h('p', { class: 'wb-note', text: __('No token of this model was routed to it in this store.') }));
      return;
    }
    this.body.replaceChildren(
      title,
      h('p', {
        class: 'wb-note',
        text: __('tokens: %1 · runs: %2 · %3 % of the layer’s choices · mean weight %4', told.count, told.runs, digits(100 * told.share, 3), told.weight === null ? '–' : digits(told.weight, 3))
      }),
      h(
        'div',
        { class: 'wb-profile-tokens' },
        ...told.tokens.map(({ text, count, lift }) =>
          h(
            'span',
            { class: 'wb-key', title: __('%1 times; %2 × as often as other tokens', count, digits(lift, 3)) },
            h('code', { class: 'wb-token', text: shown(text) }),
            h('span', { class: 'wb-quiet wb-number', text: lift >= 1.5 ? `${count} ↑` : String(count) })
          )
        )
      ),
      told.peers.length
        ? h('p', { class: 'wb-note', text: __('chosen together with %1', told.peers.map(({ expert, share }) => `${expert} (${Math.round(100 * share)} %)`).join(', ')) })
        : ''
    );
  }
}
