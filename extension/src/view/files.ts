/** Files out of the page. */
import { h } from './dom';

/** Gives `content` to the browser to be saved. */
export function save(name: string, content: BlobPart, mime: string): void {
  const address = URL.createObjectURL(new Blob([content], { type: mime }));
  const link = h('a', { attrs: { href: address, download: name } });
  link.click();
  // The browser reads the address after this turn.
  window.setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A canvas on the panel's background, as a PNG. */
export function savePicture(canvas: HTMLCanvasElement, node: Element, name: string): void {
  const copy = h('canvas', { attrs: { width: String(canvas.width), height: String(canvas.height) } });
  const context = copy.getContext('2d')!;
  context.fillStyle = getComputedStyle(node).backgroundColor;
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  copy.toBlob(blob => {
    if (blob) {
      save(name, blob, 'image/png');
    }
  });
}
