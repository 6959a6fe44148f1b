/** What has been asked of the kernel and not answered yet: every request has a number, and `done` brings it back. */
import type { Channel, ComputeRequest, ControlRequest, Lane } from './channel';

/** Requests that run the model. */
const COMPUTES = ['run', 'recompute', 'open', 'step', 'try', 'effects_of', 'heads_of', 'contributions_of', 'calibrate'];
/** Requests that change nothing that anybody could wait for. */
const SILENT = ['watch', 'seen', 'cancel', 'models_of', 'experiments_of'];
/** Requests whose failure belongs to the query box. */
const ASKED = ['query', 'plot', 'catalogue_of'];

export class Requests {
  private channel: Channel | null = null;
  private seq = 0;
  private readonly pending = new Map<number, string>();

  get connected(): boolean {
    return this.channel !== null;
  }

  /** Whether anything is unanswered. */
  get waiting(): boolean {
    return this.pending.size > 0;
  }

  /** Whether a request that runs the model is. */
  get computing(): boolean {
    return [...this.pending.values()].some(type => COMPUTES.includes(type));
  }

  /** Whether a model is being opened. */
  get opening(): boolean {
    return [...this.pending.values()].includes('open');
  }

  /** Talks to a kernel, of which nothing has been asked yet, or to none. */
  use(channel: Channel | null): void {
    this.channel = channel;
    if (channel) {
      this.pending.clear();
    }
  }

  /** Sends a request; its number, or nothing where there is no kernel. */
  send(lane: Lane, request: ControlRequest | ComputeRequest): number | undefined {
    if (!this.channel) {
      return undefined;
    }
    const seq = ++this.seq;
    if (!SILENT.includes(request.type)) {
      this.pending.set(seq, request.type);
    }
    this.channel.send(lane, { ...request, seq });
    return seq;
  }

  /** What kind of request an error belongs to; nothing for one that nobody waits for. */
  kind(seq: number | null): string | undefined {
    return seq === null ? undefined : this.pending.get(seq);
  }

  /** Whether a request's failure is shown in the query box. */
  ofQuery(type: string | undefined): boolean {
    return type !== undefined && ASKED.includes(type);
  }

  /** The request with this number has been dealt with; what kind it was. */
  finish(seq: number): string | undefined {
    const type = this.pending.get(seq);
    this.pending.delete(seq);
    return type;
  }
}
