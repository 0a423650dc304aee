/** Whether an agent may connect. */
export type Enrollment = 'pending' | 'approved' | 'revoked';

/** The wire protocol of a link. */
export type AgentProtocol = 'v1' | 'v2';

/** Which of v1's two dialects an agent was last heard to speak (agent-wire). */
export type AgentDialect = 'handoff' | 'enveloped';

/** A key that waits for approval. */
export interface PendingKey {
  readonly fingerprint: string;
  readonly protocol: AgentProtocol;
  readonly since: Date;
}

/** An agent's live link, as consumers see it. */
export interface AgentSession {
  readonly protocol: AgentProtocol;
  readonly instance: string;
  readonly remoteAddress: string | null;
  readonly connectedAt: Date;
  readonly expiresAt: Date;
}

/** An agent as consumers see it. */
export interface Agent {
  readonly uid: string;
  /** The name that it gives itself; unique within its organisation. */
  readonly name: string;
  readonly orgId: string;
  readonly hostId: string | null;
  readonly hostname: string | null;
  readonly version: string | null;
  readonly machineIdHash: string | null;
  readonly platform: unknown;
  readonly network: unknown;
  readonly capabilities: unknown;
  readonly labels: readonly string[];
  readonly note: string | null;
  readonly enrollment: Enrollment;
  /** Lower-case hex SHA-256 of the raw public key. */
  readonly keyFingerprint: string;
  /** Keys under its name that wait for approval, the newest first; one of each protocol at most. */
  readonly pendingKeys: readonly PendingKey[];
  /** Since when its v2 key is trusted, and v1 refused. */
  readonly v2Since: Date | null;
  readonly dialect: AgentDialect | null;
  /** Null while disconnected. */
  readonly session: AgentSession | null;
  readonly lastSeenAt: Date | null;
  /** When it was last heard over a link of this protocol that owned it. */
  readonly lastV1At: Date | null;
  readonly lastV2At: Date | null;
  readonly createdAt: Date;
}

/** Which agents; every given condition must hold. */
export interface AgentFilter {
  readonly connected?: boolean | undefined;
  readonly enrollment?: Enrollment | undefined;
  readonly protocol?: AgentProtocol | undefined;
  readonly orgId?: string | undefined;
  /** Every one of these. */
  readonly labels?: readonly string[] | undefined;
  /** Names or uids. */
  readonly agentRefs?: readonly string[] | undefined;
  /** Part of the name or host name, without regard to case. */
  readonly search?: string | undefined;
  /** `platform.hostname`, exactly. */
  readonly hostname?: string | undefined;
  readonly hostId?: string | undefined;
  /** An address anywhere in `network`. */
  readonly ip?: string | undefined;
}

/** An agent came or went. */
export interface PresenceChange {
  readonly agentUid: string;
  /** That of the link that came or went. */
  readonly epoch: number;
  readonly connected: boolean;
  readonly at: Date;
  readonly reason: string | null;
}
