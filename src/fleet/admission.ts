import type { EventKind } from '../agent-gateway/wire/channels.ts';
import type { AgentDialect, AgentProtocol, Enrollment } from './agent.ts';

/** An agent that has proved that it holds its key. */
export interface AuthenticatedAgent {
  readonly name: string;
  /** Standard base64 of the 32 raw bytes. */
  readonly publicKey: string;
  /** What the headers call it: its name or its uid. */
  readonly headerRef: string;
  /** The uid and bootstrap token that a reconnecting agent shows, if it does. */
  readonly uid: string | null;
  readonly bootstrapToken: string | null;
  /** The nonce that it signed, in a form that tells two nonces apart, and until when another use must be noticed. */
  readonly nonce: string;
  readonly nonceExpiresAt: Date;
  readonly protocol: AgentProtocol;
  readonly dialect: AgentDialect;
  readonly remoteAddress: string | null;
}

/** What may pass over a link, as it stands; it changes under the link's feet. */
export interface LinkStanding {
  readonly agentUid: string;
  readonly name: string;
  readonly orgId: string;
  readonly enrollment: Enrollment;
  /** Whether the link's key is the one on record: such a link owns the agent, any other stands beside it in quarantine. */
  readonly holdsKey: boolean;
  /** Whether events are trusted and commands flow: the key on record, of an approved agent. */
  readonly trusted: boolean;
  /** Kinds whose channel an operator has switched off. */
  readonly closedEventKinds: ReadonlySet<EventKind>;
}

export interface Admission {
  readonly standing: LinkStanding;
  /** The link's epoch where it owns the agent; null in quarantine. */
  readonly epoch: number | null;
  readonly sessionToken: string;
  readonly sessionExpiresAt: Date;
}

/** How links enter the fleet, stay in it and leave it. */
export interface Admissions {
  /**
   * Lets an authenticated agent in, enrols it if it is new, and makes its link the owner of the agent where it may be.
   * Throws AUTH_NONCE_REUSED, AUTH_IDENTITY_MISMATCH, AGENT_REVOKED, REGISTRATION_CLOSED, KEY_CONFLICT.
   */
  admit(agent: AuthenticatedAgent): Promise<Admission>;

  /** Makes a link that came out of quarantine the owner of its agent; its new epoch, or null if its key is not the one on record. */
  promote(agentUid: string, agent: AuthenticatedAgent): Promise<number | null>;

  /** How each of these links stands, given the key that it uses; null where its agent is gone. */
  standings(
    links: readonly { readonly agentUid: string; readonly publicKey: string }[],
  ): Promise<readonly (LinkStanding | null)[]>;

  /** Notes that the agent was heard. Written later, in batches. */
  seen(agentUid: string, epoch: number): void;

  /** The link is gone. The agent is disconnected, unless a newer link owns it. */
  left(agentUid: string, epoch: number, reason: string): Promise<void>;

  /** Whether this instance may act for its agents now: its lease runs, by its own monotonic clock. */
  readonly holdsLease: boolean;

  /** Calls back with agents that a link elsewhere has taken over from this instance. */
  onOwnershipLost(listener: (agentUid: string, epoch: number) => void): void;
}
