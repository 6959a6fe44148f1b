/** Vega, in a chunk of its own: loaded when the first chart is drawn. No code is ever made from text: the interpreter
 * evaluates expressions, so that a page with a strict content security policy draws them too. */
import embed, { type VisualizationSpec } from 'vega-embed';
import { expressionInterpreter } from 'vega-interpreter';
import { lines } from './words';

export interface Theme {
  ink: string;
  faint: string;
  line: string;
  font: string;
}

export interface Drawing {
  /** Sets a parameter of the specification, if it has it. */
  set: (name: string, value: unknown) => void;
  svg: () => Promise<string>;
  dispose: () => void;
}

const TITLE = 12;

/** A specification whose title keeps to `width` pixels, in as many lines as that takes: Vega would cut it off. */
function titled(spec: object, width: number): object {
  const title = 'title' in spec ? spec.title : null;
  return typeof title === 'string' ? { ...spec, title: lines(title, width / (0.6 * TITLE)) } : spec;
}

/** Draws `spec` into `node`; `pick` is told the data of what is clicked. */
export async function draw(
  node: HTMLElement,
  spec: object,
  theme: Theme,
  pick: (datum: Record<string, unknown>) => void
): Promise<Drawing> {
  // Of many layers only as many labels as there is room for.
  const axis = { labelOverlap: 'parity' as const, labelSeparation: 4, labelColor: theme.ink, titleColor: theme.ink, tickColor: theme.line, domainColor: theme.line, gridColor: theme.line };
  const result = await embed(node, titled(spec, node.clientWidth) as VisualizationSpec, {
    actions: false,
    ast: true,
    expr: expressionInterpreter,
    renderer: 'svg',
    tooltip: { theme: 'custom' },
    loader: { http: { method: 'none' } } as never,
    config: {
      background: 'transparent',
      font: theme.font,
      view: { stroke: theme.line },
      axis,
      title: { color: theme.ink, anchor: 'start', frame: 'bounds', fontSize: TITLE, fontWeight: 600 },
      // Below the chart, which needs the width itself.
      legend: { labelColor: theme.ink, titleColor: theme.ink, orient: 'bottom', columns: 2, gradientLength: 120 },
      rule: { color: theme.ink }
    }
  });
  result.view.addEventListener('click', (_, item) => {
    const datum = item?.datum as unknown;
    if (datum && typeof datum === 'object') {
      pick(datum as Record<string, unknown>);
    }
  });
  return {
    set: (name, value) => {
      if (name in (result.view.getState().signals as object)) {
        void result.view.signal(name, value).runAsync();
      }
    },
    svg: () => result.view.toSVG(),
    dispose: () => result.finalize()
  };
}
