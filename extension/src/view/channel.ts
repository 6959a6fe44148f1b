/** What a view knows of its kernel: two lanes to send on, and what comes back. */
import type { Compute, Control, Reply } from './protocol';

/** Of a union, each member without its `seq`, which the view adds. */
type WithoutSeq<T> = T extends unknown ? Omit<T, 'seq'> : never;
export type ControlRequest = WithoutSeq<Control>;
export type ComputeRequest = WithoutSeq<Compute>;

export type Lane = 'control' | 'compute';

/** What a kernel sends at once: messages that belong together, and how many of the buffers each has. */
export interface Post {
  messages: Reply[];
  buffers: number[];
}

export interface Letter {
  message: Reply;
  buffers: DataView[];
}

export type Listener = (letters: Letter[]) => void;

/** The messages of a post, each with its buffers. */
export function unpack(post: Post, buffers: DataView[]): Letter[] {
  let first = 0;
  return post.messages.map((message, n) => {
    const last = first + post.buffers[n]!;
    const letter = { message, buffers: buffers.slice(first, last) };
    first = last;
    return letter;
  });
}

export interface Channel {
  /** `control` is answered while a cell runs; `compute` runs the model and waits its turn. */
  send(lane: Lane, message: object): void;
  /** The one listener of this channel. */
  listen(listener: Listener): void;
}

/** Raised by one with the kernel's `workbench.panel.protocol.PROTOCOL`. */
export const PROTOCOL = 6;
