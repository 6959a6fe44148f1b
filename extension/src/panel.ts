/** The panel in JupyterLab: a view, a session of its own or a notebook's, and what happens when the kernel changes. */
import { MainAreaWidget, type ISessionContext, SessionContextDialogs, Toolbar } from '@jupyterlab/apputils';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { type ITranslator, nullTranslator } from '@jupyterlab/translation';
import { ToolbarButton, refreshIcon, stopIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';
import { CommChannel } from './commChannel';
import { KernelStatus } from './kernelStatus';
import { App, type Memory } from './view/app';
import { __ } from './view/words';

/** Leaves no name behind in the user's namespace. */
const BOOT = '__import__("workbench.panel", fromlist=["serve"]).serve() and None';

export interface PanelOptions {
  session: ISessionContext;
  /** Whether the session belongs to the panel (true) or to a notebook (false). */
  own: boolean;
  version: string;
  memory: Memory | null;
  remember: (memory: Memory) => void;
  translator: ITranslator | null;
}

class View extends Widget {
  constructor(readonly app: App) {
    super({ node: app.node });
  }

  override dispose(): void {
    this.app.dispose();
    super.dispose();
  }

  protected override onActivateRequest(): void {
    this.app.focus();
  }
}

export class WorkbenchPanel extends MainAreaWidget<View> {
  readonly session: ISessionContext;
  readonly app: App;
  private readonly options: PanelOptions;
  private readonly dialogs: SessionContextDialogs;
  private channel: CommChannel | null = null;
  /** Counts attempts to connect: a restart and a change of kernel overlap, and only the last may win. */
  private turn = 0;
  private restarting = false;

  constructor(options: PanelOptions) {
    const app = new App();
    super({ content: new View(app) });
    this.app = app;
    this.options = options;
    this.session = options.session;
    this.dialogs = new SessionContextDialogs({ translator: options.translator ?? nullTranslator });
    this.addClass('wb-host');
    if (options.memory) {
      app.recall(options.memory);
    }
    this.fillToolbar();
  }

  /** Starts or finds the kernel and connects; not to be awaited by a restoring command, which comes before sessions. */
  async start(): Promise<void> {
    if (this.options.own) {
      const choose = await this.session.initialize();
      if (choose) {
        await this.dialogs.selectKernel(this.session);
      }
    }
    await this.session.ready;
    if (this.isDisposed) {
      return;
    }
    this.session.kernelChanged.connect(this.onKernelChanged, this);
    this.session.statusChanged.connect(this.onStatusChanged, this);
    await this.connect();
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this.turn++;
      this.session.kernelChanged.disconnect(this.onKernelChanged, this);
      this.session.statusChanged.disconnect(this.onStatusChanged, this);
      this.channel?.dispose();
      // The kernel stays: a model may be loaded. It is listed under the running kernels and can be stopped there.
      super.dispose();
    }
  }

  private fillToolbar(): void {
    const dialogs = this.dialogs;
    const trans = (this.options.translator ?? nullTranslator).load('workbench');
    if (this.options.own) {
      this.toolbar.addItem(
        'restart',
        new ToolbarButton({
          icon: refreshIcon,
          tooltip: trans.__('Restart the kernel of this panel'),
          onClick: () => void dialogs.restart(this.session)
        })
      );
      this.toolbar.addItem(
        'shutdown',
        new ToolbarButton({
          icon: stopIcon,
          tooltip: trans.__('Shut down the kernel and close the panel'),
          onClick: () => void this.session.shutdown().then(() => this.dispose())
        })
      );
    }
    this.toolbar.addItem('spacer', Toolbar.createSpacerItem());
    this.toolbar.addItem('kernel', Toolbar.createKernelNameItem(this.session, dialogs));
    this.toolbar.addItem('status', new KernelStatus(this.session, this.options.translator ?? nullTranslator));
  }

  private onKernelChanged(): void {
    void this.connect();
  }

  private onStatusChanged(_: ISessionContext, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting' || status === 'dead') {
      this.restarting = status !== 'dead';
      this.turn++;
      this.drop(status === 'dead' ? __('the kernel has died') : __('the kernel is restarting'));
    } else if (status === 'idle' && this.restarting) {
      this.restarting = false;
      void this.connect();
    }
  }

  private drop(why: string): void {
    this.channel?.dispose();
    this.channel = null;
    this.app.disconnect(why);
  }

  private async connect(): Promise<void> {
    const turn = ++this.turn;
    this.drop(__('connecting to the kernel'));
    const kernel = this.session.session?.kernel;
    if (!kernel) {
      return;
    }
    const problem = await boot(kernel).catch(error => String(error));
    if (turn !== this.turn || this.isDisposed) {
      return;
    }
    if (problem) {
      this.app.disconnect(__('no workbench in the kernel'));
      this.app.fail(
        __('The kernel could not load the workbench: %1.', problem),
        __('Install routing-workbench in the environment of this kernel, or choose another kernel.'),
        () => void this.connect()
      );
      return;
    }
    this.channel = new CommChannel(kernel);
    this.app.connect(this.channel, {
      version: this.options.version,
      openDemo: this.options.own,
      remember: this.options.remember
    });
  }
}

/** Makes the kernel serve the panel; what went wrong, or nothing. */
async function boot(kernel: Kernel.IKernelConnection): Promise<string> {
  let problem = '';
  const future = kernel.requestExecute({ code: BOOT, silent: false, store_history: false, stop_on_error: false });
  future.onIOPub = message => {
    if (message.header.msg_type === 'error') {
      const { ename, evalue } = (message as KernelMessage.IErrorMsg).content;
      problem = `${ename}: ${evalue}`;
    }
  };
  await future.done;
  return problem;
}
