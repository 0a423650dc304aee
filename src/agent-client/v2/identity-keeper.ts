import type { CryptoSuite, SigningKey } from '../../agent-gateway/crypto/suite.ts';
import { keyFingerprint } from '../../agent-gateway/crypto/v2-schedule.ts';
import type { GatewayKeys } from '../../agent-gateway/wire/v2-session-channel.ts';
import { AgentError } from './agent-error.ts';
import type { AgentStore, StoredIdentity } from './store.ts';

/** Who the agent is and whom it trusts, as it is stored. */
export class IdentityKeeper {
  readonly #suite: CryptoSuite;
  readonly #store: Pick<AgentStore, 'saveIdentity'>;
  #identity: StoredIdentity;
  #saving: Promise<void> = Promise.resolve();

  private constructor(suite: CryptoSuite, store: Pick<AgentStore, 'saveIdentity'>, identity: StoredIdentity) {
    this.#suite = suite;
    this.#store = store;
    this.#identity = identity;
  }

  /**
   * Goes on with what is stored, or makes a key and stores it. `pins` are fingerprints; others than those that the store was
   * begun with take the place of what was learned since. Throws `OPTIONS_INVALID` where the store is another agent's.
   */
  static async open(
    suite: CryptoSuite,
    store: Pick<AgentStore, 'saveIdentity'>,
    stored: StoredIdentity | null,
    configured: { readonly agentId: string; readonly orgId: string | null; readonly pins: readonly string[] },
  ): Promise<IdentityKeeper> {
    const { agentId, orgId, pins } = configured;
    if (stored && (stored.agentId !== agentId || stored.orgId !== orgId))
      throw new AgentError('OPTIONS_INVALID', `the store is that of ${stored.agentId}`);
    const seed = stored?.seed ?? suite.randomBytes(32);
    const fresh = { agentId, orgId, seed, nextSeed: null, uid: null, epoch: 0, enrolledAs: null };
    const keeper = new IdentityKeeper(suite, store, stored ?? { ...fresh, pins, configuredPins: pins });
    if (!stored || !isSame(stored.configuredPins, pins)) await keeper.update({ pins, configuredPins: pins });
    return keeper;
  }

  get current(): StoredIdentity {
    return this.#identity;
  }

  key(): SigningKey {
    return this.#suite.signingKeyFromSeed(this.#identity.seed);
  }

  /** The key that takes the place of the present one once the gateway has agreed. */
  nextKey(): SigningKey | null {
    const { nextSeed } = this.#identity;
    return nextSeed && this.#suite.signingKeyFromSeed(nextSeed);
  }

  /** Holds once it is stored: rejects, and changes nothing, where that fails. Updates keep their order. */
  update(change: Partial<StoredIdentity>): Promise<void> {
    const saved = this.#saving.then(async () => {
      const identity = { ...this.#identity, ...change };
      await this.#store.saveIdentity(identity);
      this.#identity = identity;
    });
    this.#saving = saved.catch(() => undefined);
    return saved;
  }

  /** What is pinned once these keys have been told in a session with the gateway of that fingerprint. */
  pinsFor(keys: GatewayKeys, sessionFingerprint: string): string[] {
    const told = [keys.current, ...(keys.next ? [keys.next] : [])].map((key) => keyFingerprint(this.#suite, key));
    return [...new Set([...told, sessionFingerprint])];
  }
}

function isSame(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((pin) => right.includes(pin));
}
