/** The field of the prompt: Enter runs it, and it grows with its text. */
import { h } from './dom';
import { __ } from './words';

const EXAMPLE = 'The capital of France is';
const TALLEST = 160;

export class PromptField {
  readonly node: HTMLTextAreaElement;

  constructor(run: () => void) {
    this.node = h('textarea', {
      class: 'wb-input wb-prompt',
      attrs: {
        'data-wb-prompt': '',
        rows: '2',
        spellcheck: 'false',
        'aria-label': __('Prompt'),
        placeholder: __('Type a prompt, for instance: %1', EXAMPLE)
      },
      on: {
        input: () => this.grow(),
        keydown: event => {
          if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            event.stopPropagation();
            run();
          }
        }
      }
    });
  }

  get value(): string {
    return this.node.value;
  }

  set value(text: string) {
    this.node.value = text;
  }

  grow(): void {
    this.node.style.height = 'auto';
    this.node.style.height = `${Math.min(TALLEST, this.node.scrollHeight + 2)}px`;
  }
}
