import type { EventKind } from '../agent-gateway/wire/channels.ts';
import type { V2Enrollment } from '../agent-gateway/wire/v2-identity.ts';
import type { AgentDialect, AgentProtocol, Enrollment } from './agent.ts';

/** An agent that has proved that it holds its key, in either protocol. */
export interface AuthenticatedAgent {
  readonly protocol: AgentProtocol;
  /** 1 to 255 characters without control characters (`isIdentifier`). */
  readonly name: string;
  /** Standard base64 of the 32 raw bytes. */
  readonly publicKey: string;
  /** Null in v2, which has one. */
  readonly dialect: AgentDialect | null;
  readonly remoteAddress: string | null;
}

/** A v1 agent whose first frame is true. */
export interface AuthenticatedV1Agent extends AuthenticatedAgent {
  readonly protocol: 'v1';
  readonly dialect: AgentDialect;
  /** What the headers call it: its name or its uid. */
  readonly headerRef: string;
  /** The uid and bootstrap token that a reconnecting agent shows, if it does. */
  readonly uid: string | null;
  readonly bootstrapToken: string | null;
  /** The nonce that it signed, in a form that tells two nonces apart, and how long another use must be noticed. */
  readonly nonce: string;
  readonly nonceLifeMs: number;
  /** A UUID made for this handshake: the same nonce from another one is a replay, from this one it is a second try. */
  readonly attemptId: string;
}

/** A v2 agent whose M3 is true: the handshake is fresh by construction, so there is no nonce to remember. */
export interface AuthenticatedV2Agent extends AuthenticatedAgent {
  readonly protocol: 'v2';
  readonly dialect: null;
  /** The organisation that it names; null where it names none or an empty one, which means DEFAULT_ORG. */
  readonly orgId: string | null;
  /** What it says of itself. An enrolment token that is not valid counts as none. */
  readonly enroll: V2Enrollment | null;
}

/** What may pass over a link, as it stands; it changes under the link's feet. */
export interface LinkStanding {
  readonly agentUid: string;
  /** The epoch of the agent's newest link that has owned it. */
  readonly agentEpoch: number;
  readonly name: string;
  readonly orgId: string;
  readonly enrollment: Enrollment;
  /** Whether the link's key is the one on record: such a link owns the agent, any other stands beside it in quarantine. */
  readonly holdsKey: boolean;
  /** Whether events are trusted and commands flow: the key on record, of an approved agent. */
  readonly trusted: boolean;
  /** Whether the agent has been trusted on v2, after which v1 is refused until its key is reset. */
  readonly refusesV1: boolean;
  /** Kinds whose channel an operator has switched off. */
  readonly closedEventKinds: ReadonlySet<EventKind>;
}

export interface Admission {
  /** M4's `enrollment` is `trusted` where `standing.trusted`, else `quarantined`. */
  readonly standing: LinkStanding;
  /** The link's epoch where it owns the agent; null in quarantine beside another key. */
  readonly epoch: number | null;
  /** The agent's highest epoch: M4's, in quarantine too, where it stays as it was. */
  readonly agentEpoch: number;
  readonly sessionToken: string;
  /** A v1 session renews itself while the agent is heard; a v2 link ends here, and the agent opens another one before. */
  readonly sessionExpiresAt: Date;
}

/** How links enter the fleet, stay in it and leave it. */
export interface Admissions {
  /**
   * Lets an authenticated agent in, enrols it if it is new, and makes its link the owner of the agent where it may be. Many
   * that ask at once are let in by one transaction, each with an outcome of its own. Asking again with the same object, as
   * after a COMMIT whose answer was lost, is one admission with a higher epoch.
   * Throws AUTH_NONCE_REUSED, AUTH_IDENTITY_MISMATCH, AGENT_REVOKED, AGENT_V1_REFUSED, REGISTRATION_CLOSED, KEY_CONFLICT.
   */
  admit(agent: AuthenticatedV1Agent): Promise<Admission>;

  /**
   * The same for v2, likewise to be asked again where the database fails. Throws AGENT_REVOKED, REGISTRATION_CLOSED, and KEY_USED_IN_V1 for a key that was ever shown on v1. On
   * the wire all of them are 4001 with one reason; the code is for metrics and the log.
   */
  admitV2(agent: AuthenticatedV2Agent): Promise<Admission>;

  /** Makes a link that came out of quarantine the owner of its agent; its new epoch, or null if its key is not the one on record. */
  promote(agentUid: string, agent: AuthenticatedAgent): Promise<number | null>;

  /**
   * Names the key that the agent will come back with, asked for inside its v2 session and signed by the key on record
   * (`verifyRotation`). From then on either key is let in; the first handshake with the new one, which proves that the agent holds
   * it, puts it on record, and the old one is no longer trusted. Naming one again replaces it; an agent that lost the answer
   * asks again. `newPublicKey` is standard base64 of 32 bytes that `isPublicKey` accepts.
   * Throws LINK_SUPERSEDED unless the link owns its agent, KEY_CONFLICT unless its key is on record and trusted,
   * KEY_USED_IN_V1 for a key that was ever shown on v1.
   */
  rotateKey(
    link: { readonly agentUid: string; readonly publicKey: string; readonly epoch: number },
    newPublicKey: string,
  ): Promise<void>;

  /** How each of these links stands, given the key that it uses; null where its agent is gone. */
  standings(
    links: readonly { readonly agentUid: string; readonly publicKey: string }[],
  ): Promise<readonly (LinkStanding | null)[]>;

  /**
   * The agents that an operator has revoked or disconnected within the last half minute: cheap, so that it can be asked all the
   * time. `throughEpoch` is that of the last link that was meant; null where every one is.
   */
  closedLately(): Promise<readonly { readonly agentUid: string; readonly throughEpoch: number | null }[]>;

  /** Notes that the agent was heard. Written later, in batches. */
  seen(agentUid: string, epoch: number): void;

  /** The link is gone. The agent is disconnected, unless a newer link owns it. */
  left(agentUid: string, epoch: number, reason: string): Promise<void>;

  /** Whether this instance may act for its agents now: its lease runs, by its own monotonic clock. */
  readonly holdsLease: boolean;

  /** Calls back with agents that a link elsewhere has taken over from this instance. */
  onOwnershipLost(listener: (agentUid: string, epoch: number) => void): void;
}
