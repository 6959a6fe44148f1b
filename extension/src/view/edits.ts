/** What a click on an expert means for the plan. No DOM. */
import type { ControlRequest } from './channel';
import type { Ban, Bias, Block, Force } from './plan';
import type { EditCard, PlanCard } from './protocol';

/** Where the next click acts: the whole layer, or the inspected token alone. */
export type Scope = 'all' | 'token';

export interface Target {
  layer: number;
  position: number;
  scope: Scope;
}

const same = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other);

function tokensOf(target: Target): 'all' | number[] {
  return target.scope === 'all' ? 'all' : [target.position];
}

/** The enabled edit that holds exactly at `target`, for all of these kinds and this expert alone. */
export function find(plan: PlanCard, kinds: string[], target: Target, expert?: number): number {
  const holds = (edit: EditCard): boolean =>
    edit.enabled &&
    kinds.includes(edit.kind) &&
    edit.phase === 'all' &&
    same(edit.layers, [target.layer]) &&
    same(edit.tokens, expert === undefined ? 'all' : tokensOf(target)) &&
    same(edit.experts, expert === undefined ? [] : [expert]);
  return plan.edits.findIndex(holds);
}

/** The request that bans (or forces) an expert, or takes that back where it holds already. */
export function toggle(
  plan: PlanCard,
  kind: 'reroute.ban' | 'reroute.force',
  target: Target,
  expert: number
): ControlRequest {
  const edit: Ban | Force = { kind, layers: [target.layer], experts: [expert], tokens: tokensOf(target) } as Ban | Force;
  const index = find(plan, ['reroute.ban', 'reroute.force'], target, expert);
  if (index < 0) {
    return { type: 'add', edit: { ...edit } };
  }
  return plan.edits[index]!.kind === kind
    ? { type: 'remove', version: plan.version, index }
    : { type: 'replace', version: plan.version, index, edit: { ...edit } };
}

/** The request that raises an expert's logit by so much more, or takes the bias out where nothing is left of it. */
export function boost(plan: PlanCard, target: Target, expert: number, by: number): ControlRequest {
  const found = find(plan, ['reroute.bias'], target, expert);
  const index = found >= 0 && plan.edits[found]!.delta === null ? -1 : found;
  const value = (index < 0 ? 0 : plan.edits[index]!.delta!) + by;
  if (index >= 0 && value === 0) {
    return { type: 'remove', version: plan.version, index };
  }
  const edit: Bias = { kind: 'reroute.bias', layers: [target.layer], delta: { [expert]: value }, tokens: tokensOf(target) } as Bias;
  return index < 0
    ? { type: 'add', edit: { ...edit } }
    : { type: 'replace', version: plan.version, index, edit: { ...edit } };
}

/** The request that skips a block for the whole run, or brings it back. */
export function toggleSkip(plan: PlanCard, layer: number): ControlRequest {
  const edit: Block = { kind: 'skip.block', layers: [layer] };
  const index = find(plan, ['skip.block'], { layer, position: 0, scope: 'all' });
  return index < 0 ? { type: 'add', edit: { ...edit } } : { type: 'remove', version: plan.version, index };
}
