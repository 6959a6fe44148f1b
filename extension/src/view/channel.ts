/** What a view knows of its kernel: two lanes to send on, and what comes back. */
import type { Compute, Control, Reply } from './protocol';

/** Of a union, each member without its `seq`, which the view adds. */
type WithoutSeq<T> = T extends unknown ? Omit<T, 'seq'> : never;
export type ControlRequest = WithoutSeq<Control>;
export type ComputeRequest = WithoutSeq<Compute>;

export type Lane = 'control' | 'compute';

export interface Channel {
  /** `control` is answered while a cell runs; `compute` runs the model and waits its turn. */
  send(lane: Lane, message: object): void;
  /** The one listener of this channel. */
  listen(listener: (message: Reply, buffers: DataView[]) => void): void;
}

/** Raised by one with the kernel's `workbench.panel.protocol.PROTOCOL`. */
export const PROTOCOL = 4;
