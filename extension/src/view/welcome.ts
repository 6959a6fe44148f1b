/** What stands in the panel while there is no bench to show. */
import { h } from './dom';
import { __ } from './words';

/** Says that a model is being opened, or how to get a bench; `openDemo` where the panel has a kernel of its own. */
export function welcome(opening: boolean, openDemo: boolean): HTMLElement[] {
  if (opening) {
    return [
      h('h3', { class: 'wb-title', text: __('Opening a model…') }),
      h('p', { class: 'wb-note', text: __('Torch and the weights are loaded. The first time on a machine the compute kernels are compiled too, which takes up to half a minute.') })
    ];
  }
  const inNotebook = [
    h('p', {}, __('Run this in a cell of the notebook, and it appears here:')),
    h('pre', { class: 'wb-code', text: 'import workbench as wb\nbench = wb.open()' })
  ];
  return [
    h('h3', { class: 'wb-title', text: __('No bench in this kernel yet') }),
    ...(openDemo ? [] : inNotebook),
    h('p', {}, __('To open a model from here, name it in the field above (a local folder or a hub id; empty for the demo model) and press Open.'))
  ];
}
