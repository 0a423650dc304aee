import type { Scope } from '../access/scope.ts';

/** Whoever does something that is put on record. */
export interface Actor {
  readonly kind: 'admin-token' | 'command-line' | 'api-key' | 'jwt' | 'agent' | 'gateway';
  /** Names it, and is no secret: a key's id, a token's subject, an agent's uid. */
  readonly id: string;
  /** For people to read. */
  readonly label: string;
  /** Absent where there was no request, as on the command line. */
  readonly origin?: ActorOrigin | undefined;
}

/** Where an actor asked from, how the request is called in the log, and where it stands in a trace. */
export interface ActorOrigin {
  readonly clientAddress: string | null;
  readonly requestId: string | null;
  /** As W3C Trace Context writes it. */
  readonly traceparent: string | null;
}

/** Whoever changes something: what it may reach, and who it is. */
export interface Changer extends Scope, Actor {}

/** The gateway itself, of its own accord. */
export const gatewayActor: Actor = { kind: 'gateway', id: 'gateway', label: 'the gateway' };

export function agentActor(uid: string, name: string, clientAddress: string | null): Actor {
  return { kind: 'agent', id: uid, label: name, origin: { clientAddress, requestId: null, traceparent: null } };
}
