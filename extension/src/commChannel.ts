/** The panel's three comms behind a `Channel`; each carries one direction only. */
import { CommsOverSubshells, type Kernel, type KernelMessage } from '@jupyterlab/services';
import type { JSONObject } from '@lumino/coreutils';
import { UUID } from '@lumino/coreutils';
import { type Channel, type Lane, type Listener, type Post, unpack } from './view/channel';

/** How long to wait for a subshell; without one, clicks are served on the main shell, after the running cell. */
const SUBSHELL_WAIT = 500;

/** What the comms of JupyterLab have beyond their declared interface. */
type StartsSubshell = Kernel.IComm & { readonly subshellStarted?: Promise<void> };

export class CommChannel implements Channel {
  private readonly comms: Record<Lane, Kernel.IComm>;
  private readonly stream: Kernel.IComm;
  private readonly ready: Promise<unknown>;
  private open = false;
  private listener: Listener = () => undefined;

  constructor(kernel: Kernel.IKernelConnection) {
    const panel = UUID.uuid4();
    // The kernel must never send on control and compute, nor we on stream: ipykernel serves a comm's messages on the
    // thread that last sent on it, so one frame streamed from a running cell would make every click wait for that cell.
    this.stream = this.make(kernel, 'workbench.stream', CommsOverSubshells.Disabled);
    this.comms = {
      compute: this.make(kernel, 'workbench.compute', CommsOverSubshells.Disabled),
      control: this.make(kernel, 'workbench.control', CommsOverSubshells.PerCommTarget)
    };
    this.stream.onMsg = (message: KernelMessage.ICommMsgMsg) => {
      const buffers = (message.buffers ?? []).map(buffer =>
        ArrayBuffer.isView(buffer)
          ? new DataView(buffer.buffer as ArrayBuffer, buffer.byteOffset, buffer.byteLength)
          : new DataView(buffer)
      );
      this.listener(unpack(message.content.data as unknown as Post, buffers));
    };
    this.stream.open({ panel });
    this.comms.compute.open({ panel });
    const started = Promise.race([
      (this.comms.control as StartsSubshell).subshellStarted,
      new Promise(resolve => setTimeout(resolve, SUBSHELL_WAIT))
    ]);
    this.ready = started.then(() => {
      this.open = true;
      if (!this.comms.control.isDisposed) {
        this.comms.control.open({ panel });
      }
    });
  }

  private make(kernel: Kernel.IKernelConnection, target: string, mode: CommsOverSubshells): Kernel.IComm {
    const comm = kernel.createComm(target);
    comm.commsOverSubshells = mode;
    return comm;
  }

  send(lane: Lane, message: object): void {
    if (this.open) {
      this.post(lane, message); // at once: the kernel is on its way while the page is drawn
    } else {
      void this.ready.then(() => this.post(lane, message));
    }
  }

  private post(lane: Lane, message: object): void {
    const comm = this.comms[lane];
    if (!comm.isDisposed) {
      comm.send(message as JSONObject);
    }
  }

  listen(listener: Listener): void {
    this.listener = listener;
  }

  dispose(): void {
    this.listener = () => undefined;
    for (const comm of [this.comms.control, this.comms.compute, this.stream]) {
      if (!comm.isDisposed) {
        comm.close();
      }
    }
  }
}
