/** One field of an edit as a line of text, by its JSON schema: what may be typed, what it means, how a value is shown. No DOM. */

export interface Schema {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  items?: Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  $ref?: string;
  additionalProperties?: Schema | boolean;
  properties?: Record<string, Schema>;
  prefixItems?: Schema[];
  default?: unknown;
  minimum?: number;
  title?: string;
}

export type Definitions = Record<string, Schema>;

/** The alternatives of a schema, references resolved. */
export function alternatives(schema: Schema, definitions: Definitions): Schema[] {
  if (schema.$ref) {
    const found = definitions[schema.$ref.split('/').pop()!];
    return found ? alternatives(found, definitions) : [{}];
  }
  const choices = schema.anyOf ?? schema.oneOf;
  return choices ? choices.flatMap(choice => alternatives(choice, definitions)) : [schema];
}

/** Words that may be typed as they are. */
export function words(schema: Schema, definitions: Definitions): string[] {
  return alternatives(schema, definitions).flatMap(choice =>
    (choice.enum ?? (choice.const === undefined ? [] : [choice.const])).filter(word => typeof word === 'string')
  ) as string[];
}

/** Everything that a choice offers, as it is typed. */
export function choices(schema: Schema, definitions: Definitions): string[] {
  return alternatives(schema, definitions).flatMap(choice => (choice.enum ?? (choice.const === undefined ? [] : [choice.const])).map(String));
}

/** Whether a field is nothing but a choice of words or numbers. */
export function isChoice(schema: Schema, definitions: Definitions): boolean {
  return alternatives(schema, definitions).every(choice => choice.enum !== undefined || choice.const !== undefined);
}

export function isBoolean(schema: Schema, definitions: Definitions): boolean {
  return alternatives(schema, definitions).every(choice => choice.type === 'boolean');
}

/** An example of what may be typed. */
export function hint(schema: Schema, definitions: Definitions): string {
  const parts = alternatives(schema, definitions).map(choice => {
    if (choice.type === 'null') {
      return '';
    }
    if (choice.type === 'array' && isNumber(choice.items)) {
      return choice.items!.type === 'integer' ? '0, 3, 5-8' : '0.5, 0.25';
    }
    if (isSpan(choice)) {
      return '4:9';
    }
    if (choice.type === 'object' && typeof choice.additionalProperties === 'object') {
      return '5: 1.5, 7: -1';
    }
    return choice.type === 'integer' ? '1' : choice.type === 'number' ? '0.5' : '';
  });
  return [...words(schema, definitions).slice(0, 2), ...new Set(parts)].filter(Boolean).join(' / ');
}

/** The value of what was typed; nothing typed is `undefined`, the field's own default. Throws what to type instead. */
export function read(text: string, schema: Schema, definitions: Definitions): unknown {
  const typed = text.trim();
  if (!typed) {
    return undefined;
  }
  const choices = alternatives(schema, definitions);
  for (const choice of choices) {
    const named = (choice.enum ?? (choice.const === undefined ? [] : [choice.const])).find(word => String(word) === typed);
    if (named !== undefined) {
      return named;
    }
  }
  for (const choice of choices) {
    const value = readOne(typed, choice);
    if (value !== undefined) {
      return value;
    }
  }
  try {
    return JSON.parse(typed);
  } catch {
    throw new Error(hint(schema, definitions));
  }
}

function readOne(typed: string, schema: Schema): unknown {
  const items = typed.split(/[,\s]+/).filter(Boolean);
  if (schema.type === 'integer' && /^[+-]?\d+$/.test(typed)) {
    // Beyond what a number holds exactly the digits stay text; the kernel reads both.
    return Number.isSafeInteger(Number(typed)) ? Number(typed) : typed;
  }
  if (schema.type === 'number' && isDecimal(typed)) {
    return Number(typed);
  }
  if (schema.type === 'boolean' && /^(true|false)$/.test(typed)) {
    return typed === 'true';
  }
  if (schema.type === 'array' && schema.items?.type === 'integer' && items.every(item => /^\d+(-\d+)?$/.test(item))) {
    return items.flatMap(item => {
      const [first, last] = item.split('-').map(Number) as [number, number | undefined];
      return Array.from({ length: Math.max(0, (last ?? first) - first + 1) }, (_, n) => first + n);
    });
  }
  if (schema.type === 'array' && schema.items?.type === 'number' && items.every(isDecimal)) {
    return items.map(Number);
  }
  const span = /^(\d*):(\d*)$/.exec(typed);
  if (isSpan(schema) && span) {
    return { start: Number(span[1] || 0), stop: span[2] ? Number(span[2]) : null };
  }
  if (schema.type === 'object' && typeof schema.additionalProperties === 'object' && !typed.startsWith('{')) {
    const pairs = typed.split(',').map(pair => /^\s*([^:\s]+)\s*:\s*(\S+)\s*$/.exec(pair));
    if (pairs.every(pair => pair && isDecimal(pair[2]!))) {
      return Object.fromEntries(pairs.map(pair => [pair![1], Number(pair![2])]));
    }
  }
  return schema.type === 'string' && schema.enum === undefined && schema.const === undefined ? typed : undefined;
}

/** A value as `read` takes it. */
export function write(value: unknown): string {
  if (value === undefined || value === null) {
    return '';
  }
  if (Array.isArray(value)) {
    return value.every(item => typeof item !== 'object') ? value.join(', ') : JSON.stringify(value);
  }
  if (typeof value === 'object') {
    const entries = Object.entries(value);
    if ('start' in value && entries.length <= 2) {
      const { start, stop } = value as { start: number; stop?: number | null };
      return `${start || ''}:${stop ?? ''}`;
    }
    return entries.every(([, item]) => typeof item === 'number')
      ? entries.map(([key, item]) => `${key}: ${item}`).join(', ')
      : JSON.stringify(value);
  }
  return String(value);
}

const isDecimal = (text: string): boolean => text !== '' && Number.isFinite(Number(text));
const isNumber = (schema?: Schema): boolean => schema?.type === 'integer' || schema?.type === 'number';
const isSpan = (schema: Schema): boolean => schema.type === 'object' && !!schema.properties?.['start'];
