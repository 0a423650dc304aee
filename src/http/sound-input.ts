import {
  type ASTNode,
  type ASTVisitor,
  GraphQLError,
  type ListValueNode,
  type ObjectValueNode,
  type ValidationContext,
} from 'graphql';
import { isWellFormed, maxJsonDepth } from '../agent-gateway/wire/text.ts';
import { AegisError } from '../errors.ts';

/**
 * What of a GraphQL request is taken: less than the grammar allows, so that everything behind the edge can walk, store and
 * print it without a second thought. Postgres stores neither NUL nor half of a surrogate pair; `__proto__` as a key would
 * set the prototype of a copy.
 */

const tooDeep = `is nested more than ${maxJsonDepth} deep`;
const unstorable = 'has text with NUL or half of a surrogate pair';
const forbiddenKey = 'has a key `__proto__`';

/** Throws BAD_USER_INPUT that names the variable. Walks without recursion, whatever the depth. */
export function checkVariables(variables: unknown): void {
  if (typeof variables !== 'object' || variables === null) return;
  for (const [name, value] of Object.entries(variables)) {
    const fault = faultIn(value);
    if (fault !== null) throw new AegisError('BAD_USER_INPUT', `\`$${printable(name)}\` ${fault}`);
  }
}

function faultIn(value: unknown): string | null {
  const waiting: { value: unknown; depth: number }[] = [{ value, depth: 0 }];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    if (typeof next.value === 'string' && !isStorable(next.value)) return unstorable;
    if (typeof next.value !== 'object' || next.value === null) continue;
    const depth = next.depth + 1;
    if (depth > maxJsonDepth) return tooDeep;
    for (const [key, child] of Object.entries(next.value)) {
      if (key === '__proto__') return forbiddenKey;
      if (!isStorable(key)) return unstorable;
      waiting.push({ value: child, depth });
    }
  }
  return null;
}

/** A validation rule: the same for values that stand in the document. */
export function soundLiterals(context: ValidationContext): ASTVisitor {
  let depth = 0;
  const report = (fault: string, node: ASTNode) =>
    context.reportError(
      new GraphQLError(`A value ${fault}`, { nodes: [node], extensions: { code: 'BAD_USER_INPUT' } }),
    );
  const enter = (node: ListValueNode | ObjectValueNode) => {
    depth++;
    if (depth === maxJsonDepth + 1) report(tooDeep, node);
  };
  const leave = () => {
    depth--;
  };
  return {
    ListValue: { enter, leave },
    ObjectValue: { enter, leave },
    ObjectField(node) {
      if (node.name.value === '__proto__') report(forbiddenKey, node);
    },
    StringValue(node) {
      if (!isStorable(node.value)) report(unstorable, node);
    },
  };
}

function isStorable(text: string): boolean {
  return isWellFormed(text) && !text.includes('\0');
}

function printable(name: string): string {
  return /^\w{1,100}$/.test(name) ? name : '…';
}
