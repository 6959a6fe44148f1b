/** The kernel's status in the toolbar.
 *
 * JupyterLab's own item puts a new icon into the toolbar at every change, whereupon the toolbar measures all it holds. A
 * click makes the kernel busy and idle several times, and each time the page would be laid out anew in the middle of it.
 */
import { type ISessionContext, translateKernelStatuses } from '@jupyterlab/apputils';
import type { ITranslator } from '@jupyterlab/translation';
import { type LabIcon, circleEmptyIcon, circleIcon, offlineBoltIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';

type Look = 'idle' | 'busy' | 'away';

const LOOKS: [Look, LabIcon][] = [
  ['idle', circleEmptyIcon],
  ['busy', circleIcon],
  ['away', offlineBoltIcon]
];
const BUSY = ['busy', 'starting', 'terminating', 'restarting', 'autorestarting', 'initializing'];
const AWAY = ['connecting', 'disconnected', 'unknown'];

export class KernelStatus extends Widget {
  private readonly names: ReturnType<typeof translateKernelStatuses>;

  constructor(
    private readonly session: ISessionContext,
    private readonly translator: ITranslator
  ) {
    super();
    this.names = translateKernelStatuses(translator);
    this.addClass('wb-kernel-status');
    for (const [look, icon] of LOOKS) {
      this.node.append(icon.element({ className: `wb-kernel-${look}`, stylesheet: 'toolbarButton', height: '24px' }));
    }
    session.statusChanged.connect(this.tell, this);
    session.connectionStatusChanged.connect(this.tell, this);
    this.tell();
  }

  override dispose(): void {
    this.session.statusChanged.disconnect(this.tell, this);
    this.session.connectionStatusChanged.disconnect(this.tell, this);
    super.dispose();
  }

  private tell(): void {
    const status = this.session.kernelDisplayStatus;
    this.node.dataset['look'] = BUSY.includes(status) ? 'busy' : AWAY.includes(status) ? 'away' : 'idle';
    this.node.title = this.translator.load('jupyterlab').__('Kernel %1', this.names[status] || status);
  }
}
