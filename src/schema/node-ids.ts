/**
 * Opaque node ids: the base64url text of `<Type>:<id>`. Wherever an id is asked for, the plain UUID that REST shows is
 * taken as well (consumer contract).
 */

export interface NodeId {
  readonly typeName: string;
  readonly id: string;
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export function isUuid(text: string): boolean {
  return uuid.test(text);
}

export function encodeNodeId(typeName: string, id: string): string {
  return Buffer.from(`${typeName}:${id}`).toString('base64url');
}

/** What a node id names, or null for anything that `encodeNodeId` did not make. */
export function decodeNodeId(text: string): NodeId | null {
  const [, typeName, id] = /^([A-Za-z]+):(.+)$/s.exec(Buffer.from(text, 'base64url').toString()) ?? [];
  if (typeName === undefined || id === undefined || encodeNodeId(typeName, id) !== text) return null;
  return { typeName, id };
}

/** The id of a node of this type, from its node id or as it is; a node id of another type is null. */
export function idOf(typeName: string, text: string): string | null {
  const decoded = decodeNodeId(text);
  if (decoded === null) return text;
  return decoded.typeName === typeName ? decoded.id : null;
}

/** A name or uid, from what an `agentId` argument may hold: one of these, or the agent's node id. */
export function agentRefOf(text: string): string {
  const decoded = decodeNodeId(text);
  return decoded?.typeName === 'Agent' && isUuid(decoded.id) ? decoded.id : text;
}
