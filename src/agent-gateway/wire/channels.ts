/**
 * Channel names (agent-wire: "Common to both"). Each exists in a long form, `agent.<id>.<kind>`, and a short form,
 * `agent.<kind>`; `<id>` is the agent's name, which may hold dots, or its uid.
 */

/** What agents report on: the last word of an agent-to-backend channel. */
export const eventKinds = [
  'policies',
  'anomalies',
  'threats',
  'processes',
  'dependencies',
  'tests',
  'rollbacks',
  'heartbeat',
  'status',
  'logs',
] as const;
export type EventKind = (typeof eventKinds)[number];

/** What agents are sent: the last word of a backend-to-agent channel. */
export const commandKinds = ['policies', 'investigations', 'threats', 'processes', 'tests', 'rollbacks'] as const;
export type CommandKind = (typeof commandKinds)[number];

/** A parsed agent-to-backend channel; `agentRef` is null in the short form. */
export interface AgentChannel {
  readonly kind: EventKind;
  readonly agentRef: string | null;
}

/** Longest channel name: `agent.`, a name or uid of 255 characters, a dot and the longest kind. */
export const maxChannelLength = 280;

/** Parses `agent.<kind>` or `agent.<id>.<kind>`; null for anything else, an empty id included. */
export function parseAgentChannel(channel: string): AgentChannel | null {
  const parsed = parseChannel('agent.', channel, eventKinds);
  return parsed && { kind: parsed.kind, agentRef: parsed.agentRef };
}

/** Parses what a caller may name a command channel: `policies`, `backend.policies` or `backend.<id>.policies`. */
export function parseCommandChannel(channel: string): { kind: CommandKind; agentRef: string | null } | null {
  const bare = commandKinds.find((kind) => kind === channel);
  return bare ? { kind: bare, agentRef: null } : parseChannel('backend.', channel, commandKinds);
}

/** `agent.<name>.<kind>` */
export function agentChannelName(agentName: string, kind: EventKind): string {
  return `agent.${agentName}.${kind}`;
}

/** `backend.<name>.<kind>` */
export function commandChannelName(agentName: string, kind: CommandKind): string {
  return `backend.${agentName}.${kind}`;
}

/** The short form, the only one on which deployed agents listen. */
export function shortCommandChannelName(kind: CommandKind): string {
  return `backend.${kind}`;
}

function parseChannel<Kind extends string>(
  prefix: string,
  channel: string,
  kinds: readonly Kind[],
): { kind: Kind; agentRef: string | null } | null {
  if (channel.length > maxChannelLength || !channel.startsWith(prefix)) return null;
  const lastDot = channel.lastIndexOf('.');
  const lastWord = channel.slice(lastDot + 1);
  const kind = kinds.find((candidate) => candidate === lastWord);
  if (!kind) return null;
  if (lastDot === prefix.length - 1) return { kind, agentRef: null };
  return lastDot > prefix.length ? { kind, agentRef: channel.slice(prefix.length, lastDot) } : null;
}
