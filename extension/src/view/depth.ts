/** Depth events: what became of a block where it did not simply run once. No DOM. */
import type { Rgb } from './scale';
import { __ } from './words';

export interface DepthEvent {
  /** What stands in a cell, so that colour is never the only mark. */
  sign: string;
  name: string;
  colour: Rgb | null;
}

/** By the kernel's number (`grids.SKIPPED` and those below it). */
export const depthEvents = (): DepthEvent[] => [
  { sign: '', name: __('ran once'), colour: null },
  { sign: '↺', name: __('another layer’s run in its place'), colour: [204, 121, 167] },
  { sign: 'M', name: __('MLP skipped'), colour: [86, 180, 233] },
  { sign: 'A', name: __('attention skipped'), colour: [230, 159, 0] },
  { sign: '⟳', name: __('repeated'), colour: [0, 158, 115] },
  { sign: '×', name: __('block skipped'), colour: [213, 94, 0] }
];

/** The events of a cell as the store names them, such as `attn skip`, in words. */
export function eventsInWords(events: string[]): string {
  const names: Record<string, string> = {
    'block skip': __('block skipped'),
    'attn skip': __('attention skipped'),
    'mlp skip': __('MLP skipped'),
    'block repeat': __('block repeated'),
    'block reuse': __('another layer’s block in its place'),
    'attn reuse': __('another layer’s attention in its place'),
    'mlp reuse': __('another layer’s MLP in its place')
  };
  if (events.includes('block repeat') && events.length === 2) {
    // A sublayer that was repeated: the block was, without the other sublayer.
    if (events.includes('attn skip')) {
      return __('MLP repeated');
    }
    if (events.includes('mlp skip')) {
      return __('attention repeated');
    }
  }
  return events.map(event => names[event] ?? event).join(', ');
}
