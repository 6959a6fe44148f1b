/** Strings for people pass through here, so that a host can translate them: the view's own, and those that the kernel sends. */
import type { Sentence } from './protocol';

export type Translate = (text: string, ...values: unknown[]) => string;

let translate: Translate = (text, ...values) =>
  text.replace(/%(\d)/g, (_, number: string) => String(values[Number(number) - 1]));

/** Takes the host's translator; its placeholders are %1, %2 as in gettext. */
export function useTranslator(translator: Translate): void {
  translate = translator;
}

export const __: Translate = (text, ...values) => translate(text, ...values);

/** What the kernel says: translated where it is of the panel's own making, else as it is. */
export function told({ text, values }: Sentence): string {
  return values === null ? text : __(text, ...values);
}
