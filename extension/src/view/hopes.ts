/** What a click has asked of the plan, shown at once and marked, until the kernel has answered. No DOM. */
import type { ControlRequest } from './channel';
import type { EditCard, PlanCard } from './protocol';
import { said } from './words';

/** An edit that has been asked for; the kernel has not taken it up yet. */
export type HopedEdit = EditCard & { pending?: boolean };

/** A plan as it will be if everything that was asked is granted; `hash`, `text` and `python` are of the one that holds. */
export type HopedPlan = Omit<PlanCard, 'edits'> & { edits: HopedEdit[]; pending?: boolean };

/** Requests whose outcome only the kernel knows. */
const OPEN = ['exchange', 'imitate', 'load', 'recall'];

/** The plan once `request` is granted; the same plan where the request does not change it. */
export function hope(plan: HopedPlan, request: ControlRequest): HopedPlan {
  const changed = (edits: HopedEdit[]): HopedPlan => ({
    ...plan,
    edits,
    version: plan.version + 1,
    undo: true,
    redo: false,
    earlier: plan.edits,
    later: null,
    pending: true
  });
  const edits = plan.edits;
  // A request that speaks of another plan than this one will be refused.
  const fits = 'version' in request && 'index' in request && request.version === plan.version && edits[request.index] !== undefined;
  switch (request.type) {
    case 'add':
      return changed([...edits, cardOf(request.edit)]);
    case 'clear':
      return edits.length ? changed([]) : plan;
    case 'remove':
      return fits ? changed(edits.filter((_, n) => n !== request.index)) : plan;
    case 'replace':
      return fits ? changed(edits.with(request.index, cardOf(request.edit))) : plan;
    case 'enable':
      return fits ? changed(edits.with(request.index, { ...edits[request.index]!, enabled: request.enabled, pending: true })) : plan;
    case 'move': {
      const moved = edits[request.index];
      return fits ? changed(edits.toSpliced(request.index, 1).toSpliced(request.to, 0, { ...moved!, pending: true })) : plan;
    }
    case 'undo':
      return plan.earlier ? back(plan, plan.earlier, false) : plan;
    case 'redo':
      return plan.later ? back(plan, plan.later, true) : plan;
    default:
      return OPEN.includes(request.type) ? { ...plan, pending: true } : plan;
  }
}

/** Whether a request is one that changes the plan if it is granted. */
export function changesPlan(request: ControlRequest): boolean {
  return ['add', 'clear', 'remove', 'replace', 'enable', 'move', 'undo', 'redo', ...OPEN].includes(request.type);
}

function back(plan: HopedPlan, edits: HopedEdit[], redo: boolean): HopedPlan {
  // What lies beyond the neighbour the kernel has not told: until it answers, there is one way to go.
  return {
    ...plan, edits, version: plan.version + 1, pending: true,
    undo: redo, redo: !redo, earlier: redo ? plan.edits : null, later: redo ? null : plan.edits
  };
}

/** An edit's data as a card; its words come from the kernel. */
function cardOf(data: Record<string, unknown>): HopedEdit {
  const delta = data['delta'];
  const raised = typeof delta === 'object' && delta !== null && !Array.isArray(delta) ? Object.entries(delta as Record<string, number>) : [];
  const experts = (data['experts'] as number[] | undefined) ?? raised.map(([expert]) => Number(expert));
  const layers = Array.isArray(data['layers']) ? (data['layers'] as number[]) : null;
  const kind = String(data['kind']);
  const name = kind.split('.').pop()!.replaceAll('_', ' ');
  const what = experts.length ? said('%1 expert %2', name, experts.join(', ')) : said('%1', name);
  return {
    kind,
    text: layers ? (layers.length > 1 ? said('%1 in layers %2', what, layers.join(', ')) : said('%1 in layer %2', what, layers.join())) : what,
    enabled: data['enabled'] !== false,
    layers,
    experts,
    delta: kind === 'reroute.bias' && raised.length === 1 && (data['at'] ?? 'logits') === 'logits' ? raised[0]![1] : null,
    tokens: data['tokens'] ?? 'all',
    phase: String(data['phase'] ?? 'all'),
    data,
    pending: true
  };
}
