/** The inline view: the same panel over an anywidget model. */
import base from '../../style/base.css';
import inspector from '../../style/inspector.css';
import map from '../../style/map.css';
import views from '../../style/views.css';
import { App } from './app';
import { type Channel, type Listener, type Post, unpack } from './channel';
import { useVega } from './figure';
import { VERSION } from './version';

/** The answer to a question for Vega; its code is the one buffer. */
interface Vega {
  type: 'vega';
}

interface Model {
  send(content: object): void;
  on(event: 'msg:custom', listener: (content: Post | Vega, buffers: DataView[]) => void): void;
  off(event: 'msg:custom', listener: (content: Post | Vega, buffers: DataView[]) => void): void;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const style = document.createElement('style');
  style.textContent = base + map + inspector + views;
  const app = new App();
  app.node.classList.add('wb-inline');
  // Keys typed here are for the panel: without this a notebook in command mode would take B for "insert a cell".
  // JupyterLab looks from the focused element outwards and finds its shortcut there first, so an ancestor is too late.
  app.node.addEventListener('focusin', event => {
    (event.target as Element).setAttribute('data-lm-suppress-shortcuts', 'true');
  });
  el.append(style, app.node);
  let listener: Listener = () => undefined;
  const channel: Channel = {
    send: (lane, message) => model.send({ lane, message }),
    listen: next => {
      listener = next;
    }
  };
  useVega(() => loadVega(model));
  const receive = (content: Post | Vega, buffers: DataView[]): void => {
    if ('messages' in content) {
      listener(unpack(content, buffers));
    }
  };
  model.on('msg:custom', receive);
  app.connect(channel, { version: VERSION, openDemo: false });
  return () => {
    model.off('msg:custom', receive);
    app.dispose();
  };
}

let vega: ReturnType<typeof loadVega> | null = null;

/** Vega is ten times the rest of the view, so the model sends it only when the first chart is drawn. */
function loadVega(model: Model): Promise<typeof import('./vega')> {
  vega ??= new Promise((resolve, reject) => {
    const receive = (content: Post | Vega, buffers: DataView[]): void => {
      if ('type' in content) {
        model.off('msg:custom', receive);
        const code = new Blob([buffers[0] as DataView<ArrayBuffer>], { type: 'text/javascript' });
        const address = URL.createObjectURL(code);
        import(address).then(resolve, reject).finally(() => URL.revokeObjectURL(address));
      }
    };
    model.on('msg:custom', receive);
    model.send({ vega: true });
  });
  return vega;
}

export default { render };
