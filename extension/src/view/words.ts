/** Strings for people pass through here, so that a host can translate them. */

export type Translate = (text: string, ...values: unknown[]) => string;

let translate: Translate = (text, ...values) =>
  text.replace(/%(\d)/g, (_, number: string) => String(values[Number(number) - 1]));

/** Takes the host's translator; its placeholders are %1, %2 as in gettext. */
export function useTranslator(translator: Translate): void {
  translate = translator;
}

export const __: Translate = (text, ...values) => translate(text, ...values);
