/** The JupyterLab plugin: how the panel is opened, and how it comes back. */
import { type JupyterFrontEnd, type JupyterFrontEndPlugin, ILayoutRestorer } from '@jupyterlab/application';
import { ICommandPalette, IThemeManager, SessionContext, WidgetTracker } from '@jupyterlab/apputils';
import { PageConfig } from '@jupyterlab/coreutils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { LabIcon } from '@jupyterlab/ui-components';
import { UUID } from '@lumino/coreutils';
import svg from '../style/icons/workbench.svg';
import { WorkbenchPanel } from './panel';
import type { Memory, Preferences } from './view/app';
import { useVega } from './view/figure';
import type { Colour } from './view/mapdata';
import { VERSION } from './view/version';
import { useTranslator } from './view/words';

const PLUGIN = 'workbench-lab:plugin';
const NAMESPACE = 'workbench';
const OPEN = 'workbench:open';
const OPEN_NOTEBOOK = 'workbench:open-notebook';

/** What is needed to make a panel again after a page reload. */
interface Place {
  id: string;
  /** Path of the notebook whose kernel the panel borrows; absent when it has its own. */
  notebook?: string;
}

const icon = new LabIcon({ name: 'workbench-lab:workbench', svgstr: svg });

const plugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN,
  description: 'A panel that shows and changes the routing of a live model.',
  autoStart: true,
  optional: [ICommandPalette, ILauncher, ILayoutRestorer, INotebookTracker, ISettingRegistry, IThemeManager, ITranslator],
  activate
};

function activate(
  app: JupyterFrontEnd,
  palette: ICommandPalette | null,
  launcher: ILauncher | null,
  restorer: ILayoutRestorer | null,
  notebooks: INotebookTracker | null,
  settings: ISettingRegistry | null,
  themes: IThemeManager | null,
  translator: ITranslator | null
): void {
  const trans = (translator ?? nullTranslator).load(NAMESPACE);
  useTranslator((text, ...values) => trans.__(text, ...values));
  const tracker = new WidgetTracker<WorkbenchPanel>({ namespace: NAMESPACE });
  const places = new Map<WorkbenchPanel, Place>();
  // A chunk of its own, fetched from this server when the first chart is drawn.
  useVega(() => import('./view/vega'));
  let placement = 'right';
  const preferences: Preferences = { colour: 'expert', scope: 'all', link: linkTo };

  if (settings) {
    void settings.load(PLUGIN).then(loaded => {
      const read = (): void => {
        placement = String(loaded.get('placement').composite);
        preferences.colour = loaded.get('colour').composite as Colour;
        preferences.scope = loaded.get('scope').composite as Preferences['scope'];
        tracker.forEach(panel => panel.app.prefer({ ...preferences }));
      };
      read();
      loaded.changed.connect(read);
    });
  }
  // Behind this signal JupyterLab hides itself for a frame, in which nothing has a width to be drawn at.
  const restyle = (): void => tracker.forEach(panel => panel.app.restyle());
  themes?.themeChanged.connect(() => requestAnimationFrame(() => requestAnimationFrame(restyle)));

  const find = (test: (place: Place) => boolean): WorkbenchPanel | undefined =>
    [...places].find(([panel, place]) => !panel.isDisposed && test(place))?.[0];

  function add(place: Place, notebook: NotebookPanel | null): WorkbenchPanel {
    const session =
      notebook?.sessionContext ??
      new SessionContext({
        kernelManager: app.serviceManager.kernels,
        sessionManager: app.serviceManager.sessions,
        specsManager: app.serviceManager.kernelspecs,
        path: `workbench/${place.id}`,
        name: 'Workbench',
        type: 'workbench',
        kernelPreference: { language: 'python', autoStartDefault: true }
      });
    const key = `workbench-lab:memory:${place.id}`;
    const panel = new WorkbenchPanel({
      session,
      own: notebook === null,
      version: VERSION,
      memory: readMemory(key),
      remember: memory => keepMemory(key, memory),
      translator
    });
    panel.id = `workbench-${place.id}`;
    panel.title.icon = icon;
    panel.title.closable = true;
    panel.title.label = notebook ? trans.__('Workbench: %1', notebook.title.label) : trans.__('Workbench');
    panel.title.caption = panel.title.label;
    panel.app.prefer({ ...preferences });
    places.set(panel, place);
    panel.disposed.connect(() => places.delete(panel));
    if (notebook) {
      notebook.disposed.connect(() => panel.dispose());
      const mode = placement === 'tab' ? 'tab-after' : placement === 'bottom' ? 'split-bottom' : 'split-right';
      app.shell.add(panel, 'main', { ref: notebook.id, mode });
    } else {
      app.shell.add(panel, 'main');
    }
    void tracker.add(panel);
    // Not awaited: while the layout is being restored, the sessions of notebooks have not started yet.
    void panel.start().catch(error => panel.app.fail(String(error), trans.__('Choose a kernel in the toolbar of the panel.')));
    return panel;
  }

  app.commands.addCommand(OPEN, {
    label: args => (args['isPalette'] ? trans.__('Open the Routing Workbench') : trans.__('Workbench')),
    caption: trans.__('See how a model routes its tokens, and change it'),
    icon: args => (args['isPalette'] ? undefined! : icon),
    describedBy: {
      args: {
        type: 'object',
        properties: { id: { type: 'string' }, notebook: { type: 'string' }, isPalette: { type: 'boolean' } }
      }
    },
    execute: args => {
      const path = args['notebook'] as string | undefined;
      const notebook = path ? notebooks?.find(panel => panel.context.path === path) : undefined;
      if (path && !notebook) {
        return undefined;
      }
      const id = args['id'] as string | undefined;
      const panel = (id && find(place => place.id === id)) || add({ id: id ?? UUID.uuid4(), ...(path ? { notebook: path } : {}) }, notebook ?? null);
      if (!id) {
        app.shell.activateById(panel.id);
      }
      return panel;
    }
  });

  app.commands.addCommand(OPEN_NOTEBOOK, {
    label: trans.__('Open the Workbench for this notebook'),
    caption: trans.__('Open the Workbench on the kernel of this notebook (Ctrl+Alt+W)'),
    icon,
    describedBy: { args: { type: 'object', properties: {} } },
    isEnabled: () => !!notebooks?.currentWidget,
    execute: () => {
      const notebook = notebooks?.currentWidget;
      if (!notebook) {
        return undefined;
      }
      const path = notebook.context.path;
      const panel = find(place => place.notebook === path) ?? add({ id: UUID.uuid4(), notebook: path }, notebook);
      app.shell.activateById(panel.id);
      return panel;
    }
  });

  const query = new URLSearchParams(window.location.search).get(QUERY);
  if (query !== null) {
    // The query is shown, not asked: whoever opens a link that another person made looks at it first.
    void app.restored.then(() => {
      const panel = tracker.currentWidget ?? add({ id: UUID.uuid4() }, null);
      app.shell.activateById(panel.id);
      panel.app.ask(query);
    });
  }

  palette?.addItem({ command: OPEN, category: trans.__('Workbench'), args: { isPalette: true } });
  palette?.addItem({ command: OPEN_NOTEBOOK, category: trans.__('Workbench') });
  launcher?.add({ command: OPEN, category: trans.__('Workbench'), rank: 0 });

  if (restorer) {
    void restorer.restore(tracker, {
      command: OPEN,
      args: panel => ({ ...places.get(panel)! }) as unknown as Record<string, string>,
      name: panel => places.get(panel)!.id,
      // A panel that came before its notebook would take the kernel's comms from it.
      ...(notebooks ? { when: [notebooks.restored] } : {})
    });
  }
}

/** Name of the part of an address that holds a query. */
const QUERY = 'workbench-sql';

/** An address of this JupyterLab that opens a panel with `sql` in its query box. */
function linkTo(sql: string): string {
  const address = new URL(`${PageConfig.getBaseUrl()}lab`, window.location.href);
  address.searchParams.set(QUERY, sql);
  return address.href;
}

/** What a browser keeps for a page is limited; a plan or prompt beyond this lives in the kernel alone. */
const MEMORY = 1_000_000;

function keepMemory(key: string, memory: Memory): void {
  const text = JSON.stringify(memory);
  if (text.length < MEMORY) {
    sessionStorage.setItem(key, text);
  }
}

function readMemory(key: string): Memory | null {
  const text = sessionStorage.getItem(key);
  return text ? (JSON.parse(text) as Memory) : null;
}

export default plugin;
