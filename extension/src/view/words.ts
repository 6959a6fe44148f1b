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

/** A sentence as the kernel would say it, its words from a literal, for catalogues to list. */
export const said = (text: string, ...values: NonNullable<Sentence['values']>): Sentence => ({ text, values });

/** What the kernel says: translated where it is of our own making, with the sentences in it, else as it is. */
export function told({ text, values }: Sentence): string {
  return values === null ? text : __(text, ...values.map(value => (typeof value === 'object' ? told(value) : value)));
}

/** A chart's specification with everything it says to a person translated. */
export function toldIn(spec: unknown): unknown {
  if (Array.isArray(spec)) {
    return spec.map(toldIn);
  }
  if (spec === null || typeof spec !== 'object') {
    return spec;
  }
  if ('$said' in spec) {
    return told(spec.$said as Sentence);
  }
  return Object.fromEntries(Object.entries(spec).map(([key, value]) => [key, toldIn(value)]));
}

/** Text in lines of at most `most` characters, broken between words. */
export function lines(text: string, most: number): string[] {
  const made: string[] = [];
  for (const word of text.split(' ')) {
    const last = made.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= most) {
      made[made.length - 1] = `${last} ${word}`;
    } else {
      made.push(word);
    }
  }
  return made;
}
