/** Going through tokens with the arrow keys, where a text is shown as a row of them. */

/** The token that a key leads to from `at`, of those from `first` to `last`; nothing for other keys. */
export function step(key: string, at: number, first: number, last: number): number | null {
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: first, End: last }[key];
  return to === undefined || last < first ? null : Math.min(last, Math.max(first, to));
}

/** Selects what a key leads to, and keeps the key from scrolling. */
export function walk(event: KeyboardEvent, at: number, first: number, last: number, select: (token: number) => void): void {
  const to = event.ctrlKey || event.metaKey || event.altKey ? null : step(event.key, at, first, last);
  if (to !== null) {
    event.preventDefault();
    event.stopPropagation();
    if (to !== at) {
      select(to);
    }
  }
}
