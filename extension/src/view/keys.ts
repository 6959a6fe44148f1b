/** Keys that hold everywhere in the panel but where somebody types. */
export interface Keys {
  undo: () => void;
  redo: () => void;
  flip: () => void;
}

export function onKey(event: KeyboardEvent, keys: Keys): void {
  const target = event.target;
  const ticked = target instanceof HTMLInputElement && ['checkbox', 'range'].includes(target.type);
  const typing = !ticked && (target instanceof HTMLTextAreaElement || target instanceof HTMLInputElement);
  const accel = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  let act: (() => void) | null = null;
  if (accel && key === 'z' && !typing) {
    act = event.shiftKey ? keys.redo : keys.undo;
  } else if (!accel && !event.altKey && !event.shiftKey && key === 'b' && !typing && !(target instanceof HTMLSelectElement)) {
    act = keys.flip;
  }
  if (act) {
    event.preventDefault();
    event.stopPropagation();
    act();
  }
}
