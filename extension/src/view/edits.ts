/** What a click on an expert means for the plan. No DOM. */
import type { ControlRequest } from './channel';
import type { Box } from './paint';
import type { Attention, Ban, Bias, Block, Force, Heads, Mlp, Neurons, Replay, Span, Weights } from './plan';
import type { EditCard, PlanCard } from './protocol';
import { __ } from './words';

/** Where the next click acts: the whole layer, the inspected token alone, or the marked box. */
export type Scope = 'all' | 'token' | 'box';

export interface Target {
  layer: number;
  position: number;
  scope: Scope;
  box?: Box | null;
}

const same = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other);

export function tokensOf({ scope, position, box }: Target): 'all' | number[] | Span {
  if (scope === 'box' && box) {
    return { start: box.tokens[0], stop: box.tokens[1] + 1 };
  }
  return scope === 'all' ? 'all' : [position];
}

export function layersOf({ scope, layer, box }: Target): number[] {
  if (scope !== 'box' || !box) {
    return [layer];
  }
  return Array.from({ length: box.layers[1] - box.layers[0] + 1 }, (_, n) => box.layers[0] + n);
}

/** Whether an edit holds for every token of its scope, without a condition, and in every row and step. */
function unconditional({ enabled, phase, data }: EditCard): boolean {
  const free = (value: unknown): boolean => value === undefined || value === null || value === 'all';
  return enabled && phase === 'all' && free(data['where']) && free(data['rows']) && free(data['steps']);
}

/** The enabled edit of one of these kinds that holds exactly at `target`, for this expert alone where one is given. */
export function find(plan: PlanCard, kinds: string[], target: Target, expert?: number): number {
  const holds = (edit: EditCard): boolean =>
    unconditional(edit) &&
    kinds.includes(edit.kind) &&
    same(edit.layers, layersOf(target)) &&
    same(edit.tokens, tokensOf(target)) &&
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
  const edit: Ban | Force = { kind, layers: layersOf(target), experts: [expert], tokens: tokensOf(target) } as Ban | Force;
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
  const edit: Bias = { kind: 'reroute.bias', layers: layersOf(target), delta: { [expert]: value }, tokens: tokensOf(target) } as Bias;
  return index < 0
    ? { type: 'add', edit: { ...edit } }
    : { type: 'replace', version: plan.version, index, edit: { ...edit } };
}

export type SkipKind = 'skip.block' | 'skip.attention' | 'skip.mlp';

/** The request that leaves a block or one of its sublayers out at `target`, or brings it back. */
export function toggleSkip(plan: PlanCard, kind: SkipKind, target: Target): ControlRequest {
  const edit = { kind, layers: layersOf(target), tokens: tokensOf(target) } as Block | Attention | Mlp;
  const index = find(plan, [kind], target);
  return index < 0 ? { type: 'add', edit: { ...edit } } : { type: 'remove', version: plan.version, index };
}

/** What neurons are chosen by. */
export type Criterion = 'magnitude' | 'activation' | 'random';

/** The request that masks a share of the neurons of a layer by a criterion, or takes exactly that back. A mask by activation
 * lacks its `source`, which has to be measured first. */
export function toggleNeurons(plan: PlanCard, target: Target, ratio: number, criterion: Criterion): ControlRequest {
  const edit = { kind: 'mask.neurons', layers: layersOf(target), tokens: tokensOf(target), ratio, criterion } as Neurons;
  const index = plan.edits.findIndex(
    one => one.data['ratio'] === ratio && one.data['criterion'] === criterion && find({ ...plan, edits: [one] }, ['mask.neurons'], target) === 0
  );
  return index < 0 ? { type: 'add', edit: { ...edit } } : { type: 'remove', version: plan.version, index };
}

/** The factor by which an expert's weight is scaled at `target`; 1 where it is not. */
export function scaled(plan: PlanCard, target: Target, expert: number): number {
  const index = findScale(plan, target);
  return index < 0 ? 1 : ((plan.edits[index]!.data['scale'] as Record<string, number>)[expert] ?? 1);
}

/** The request that scales an expert's weight, beside what is scaled already, or takes the edit out when nothing is. */
export function scaleWeight(plan: PlanCard, target: Target, expert: number, factor: number): ControlRequest | null {
  const index = findScale(plan, target);
  const scale = { ...(index < 0 ? {} : (plan.edits[index]!.data['scale'] as Record<string, number>)) };
  delete scale[expert];
  if (factor !== 1) {
    scale[expert] = factor;
  }
  if (!Object.keys(scale).length) {
    return index < 0 ? null : { type: 'remove', version: plan.version, index };
  }
  const edit = { kind: 'reroute.weights', layers: layersOf(target), tokens: tokensOf(target), scale } as Weights;
  return index < 0
    ? { type: 'add', edit: { ...edit } }
    : { type: 'replace', version: plan.version, index, edit: { ...edit } };
}

function findScale(plan: PlanCard, target: Target): number {
  return plan.edits.findIndex(
    edit =>
      unconditional(edit) &&
      edit.kind === 'reroute.weights' &&
      same(edit.layers, layersOf(target)) &&
      same(edit.tokens, tokensOf(target)) &&
      typeof edit.data['scale'] === 'object' &&
      edit.data['scale'] !== null
  );
}

/** The request that masks one head of a layer, or takes that back. */
export function toggleHead(plan: PlanCard, layer: number, head: number): ControlRequest {
  const index = plan.edits.findIndex(
    edit => unconditional(edit) && edit.kind === 'mask.heads' && edit.tokens === 'all' && same(edit.layers, [layer]) && same(edit.data['heads'], [head])
  );
  const edit = { kind: 'mask.heads', layers: [layer], heads: [head] } as Heads;
  return index < 0 ? { type: 'add', edit: { ...edit } } : { type: 'remove', version: plan.version, index };
}

/** The request that replays another run's routes at `target`. Its number stays text: it exceeds what a number holds. */
export function replay(target: Target, run: string): ControlRequest {
  const edit = { kind: 'reroute.replay', layers: layersOf(target), tokens: tokensOf(target) } as Replay;
  return { type: 'add', edit: { ...edit, run } as unknown as Record<string, unknown> };
}

/** The edit of the plan that re-routes `target` itself, if one does: a replay there fixes the whole choice, and cannot stand beside it. */
export function rerouting(plan: PlanCard, target: Target): EditCard | undefined {
  const [layers, tokens] = [layersOf(target), tokensOf(target)];
  return plan.edits.find(
    edit =>
      edit.enabled &&
      edit.kind.startsWith('reroute.') &&
      (edit.layers === null || edit.layers.some(layer => layers.includes(layer))) &&
      !(Array.isArray(edit.tokens) && Array.isArray(tokens) && !edit.tokens.some(token => (tokens as number[]).includes(token as number)))
  );
}

/** Where an edit at `target` holds, in words that end a sentence. */
export function placeOf(target: Target): string {
  if (target.scope === 'box' && target.box) {
    return __('in the marked box: %1', wordsOf(target.box));
  }
  return target.scope === 'all' ? __('in layer %1 for all tokens', target.layer) : __('in layer %1 for token %2 alone', target.layer, target.position);
}

/** A box in words. */
export function wordsOf({ layers, tokens }: Box): string {
  const span = (one: string, many: string, [first, last]: [number, number]): string =>
    first === last ? __(one, first) : __(many, first, last);
  return `${span('layer %1', 'layers %1 to %2', layers)}, ${span('token %1', 'tokens %1 to %2', tokens)}`;
}
