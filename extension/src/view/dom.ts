/** Building the page. Text only ever becomes a text node: tokens, model names and errors are untrusted. */

export interface Props {
  class?: string;
  text?: string;
  title?: string;
  attrs?: Record<string, string | boolean | undefined>;
  on?: { [E in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[E]) => void };
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: (Node | string | null)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (props.class) {
    node.className = props.class;
  }
  if (props.text !== undefined) {
    node.textContent = props.text;
  }
  if (props.title !== undefined) {
    node.title = props.title;
  }
  for (const [name, value] of Object.entries(props.attrs ?? {})) {
    setAttr(node, name, value);
  }
  for (const [name, listener] of Object.entries(props.on ?? {})) {
    node.addEventListener(name, listener as EventListener);
  }
  node.append(...children.filter(child => child !== null));
  return node;
}

export function setAttr(node: Element, name: string, value: string | boolean | undefined): void {
  const wanted = value === undefined || value === false ? null : value === true ? '' : value;
  if (node.getAttribute(name) === wanted) {
    return; // even the same value would make the page look at the node again
  }
  if (wanted === null) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, wanted);
  }
}

/** Makes `text` the text of a node. */
export function setText(node: Element, text: string): void {
  if (node.textContent !== text) {
    node.textContent = text; // the same text again would be laid out again
  }
}

/** Makes `title` the title of a node. */
export function setTitle(node: HTMLElement, title: string): void {
  if (node.title !== title) {
    node.title = title;
  }
}

/** A push button that a test or another tool can find by what it does. */
export function button(label: string, action: string, title: string, press: () => void): HTMLButtonElement {
  return h('button', {
    class: 'wb-button',
    text: label,
    title,
    attrs: { type: 'button', 'data-wb-action': action },
    on: { click: press }
  });
}

/** White space that a reader would otherwise not see. */
export function shown(text: string): string {
  return text.replace(/ /g, '·').replace(/\r?\n/g, '⏎').replace(/\t/g, '⇥') || '∅';
}

/** A drop-down list whose name is read out. */
export function choice(
  name: string,
  options: [string, string][],
  change: (value: string) => void
): HTMLSelectElement {
  const node = h('select', { class: 'wb-select', attrs: { 'aria-label': name } });
  node.append(...options.map(([value, text]) => h('option', { text, attrs: { value } })));
  node.addEventListener('change', () => change(node.value));
  return node;
}
