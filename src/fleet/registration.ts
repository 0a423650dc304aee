/** What an agent says of itself when it registers; unknown JSON is kept as it came. */
export interface RegistrationRequest {
  /** DEFAULT_ORG where absent. */
  readonly orgId?: string | undefined;
  readonly hostId: string;
  /** Standard base64 of the 32 raw Ed25519 bytes, as the agent sent it. */
  readonly publicKey: string;
  readonly machineIdHash?: string | undefined;
  readonly agentVersion?: string | undefined;
  readonly capabilities?: unknown;
  readonly platform?: unknown;
  readonly network?: unknown;
}

/** The agent over whose authenticated link a registration comes; absent over HTTP. */
export interface RegisteringLink {
  readonly agentUid: string;
  readonly publicKey: string;
}

export interface RegistrationChallenge {
  /** A UUID. */
  readonly registrationId: string;
  /** Standard base64 of 32 random bytes. */
  readonly nonce: string;
  /** Such as `2026-11-23T12:10:34Z`. */
  readonly serverTime: string;
}

export interface RegistrationProof {
  readonly registrationId: string;
  readonly hostId: string;
  /** Standard base64 of the signature over the raw nonce, the server time and the host id. */
  readonly signature: string;
  readonly remoteAddress: string | null;
}

export interface RegisteredAgent {
  readonly agentUid: string;
  readonly bootstrapToken: string;
}

/** Registration, the same over the agents' socket and over HTTP: a challenge, then its signature. */
export interface Registration {
  /** Throws BAD_PUBKEY, REGISTRATION_CLOSED, BAD_USER_INPUT. */
  begin(request: RegistrationRequest, link?: RegisteringLink): Promise<RegistrationChallenge>;

  /**
   * The same organisation, name and key always give the same uid. The challenge is used up by success alone.
   * Throws UNKNOWN_REGISTRATION, BAD_SIGNATURE, SIGNATURE_VERIFY_FAILED, KEY_CONFLICT, AGENT_REVOKED, in this order.
   */
  complete(proof: RegistrationProof, link?: RegisteringLink): Promise<RegisteredAgent>;
}
