import { signRotation } from '../../agent-gateway/crypto/v2-key-rotation.ts';
import { type ErrorNotice, encodeKeyRotation, sessionChannel } from '../../agent-gateway/wire/v2-session-channel.ts';
import { AgentError } from './agent-error.ts';
import type { IdentityKeeper } from './identity-keeper.ts';
import type { V2Link } from './link.ts';

/** A change of the agent's key, over as many links and processes as it takes. */
export class KeyRotation {
  readonly #identity: IdentityKeeper;
  readonly #newSeed: () => Uint8Array;
  #asked: { readonly link: V2Link; readonly id: string } | null = null;
  #wanted: { readonly done: Promise<void>; settle(refusal: AgentError | null): void } | null = null;

  constructor(identity: IdentityKeeper, newSeed: () => Uint8Array) {
    this.#identity = identity;
    this.#newSeed = newSeed;
  }

  /** Resolves when the gateway has agreed and the new key is the agent's. */
  async rotate(link: V2Link | null): Promise<void> {
    if (this.#wanted) return this.#wanted.done;
    let settle: (refusal: AgentError | null) => void = () => undefined;
    const done = new Promise<void>((resolve, reject) => {
      settle = (refusal) => (refusal ? reject(refusal) : resolve());
    });
    this.#wanted = { done, settle };
    // Stored before it is told: the gateway may agree, and the answer be lost.
    if (!this.#identity.current.nextSeed)
      await this.#identity.update({ nextSeed: this.#newSeed() }).catch((error) => {
        this.#settle(new AgentError('STORE_FAILED', 'the new key could not be stored', { cause: error }));
      });
    if (link?.isOpen) this.ask(link);
    return done;
  }

  /** Asks over this link where a rotation is under way. */
  ask(link: V2Link): void {
    const nextKey = this.#identity.nextKey();
    if (!nextKey || this.#asked?.link === link) return;
    const rotation = signRotation(link.session, this.#identity.key(), nextKey);
    const payload = encodeKeyRotation(rotation);
    const id = link.say({ type: 'request', channel: sessionChannel, headers: {}, payload });
    this.#asked = { link, id };
  }

  /** Gives whether that was the answer that it waits for. Rejects where the new key cannot be stored. */
  async agreed(link: V2Link, requestId: string | null): Promise<boolean> {
    const { nextSeed } = this.#identity.current;
    if (!this.#isAsked(link, requestId) || !nextSeed) return false;
    await this.#identity.update({ seed: nextSeed, nextSeed: null });
    this.#settle(null);
    return true;
  }

  /** The gateway does not agree. What can be tried again is, over the next link. */
  async refused(link: V2Link, requestId: string | null, { code, message, retryable }: ErrorNotice): Promise<void> {
    if (!this.#isAsked(link, requestId) || retryable) return;
    await this.#identity.update({ nextSeed: null });
    this.#settle(new AgentError(code, message));
  }

  close(): void {
    this.#settle(new AgentError('AGENT_CLOSED', 'closed before the gateway agreed to the new key'));
  }

  #isAsked(link: V2Link, requestId: string | null): boolean {
    return this.#asked?.link === link && this.#asked.id === requestId;
  }

  #settle(refusal: AgentError | null): void {
    this.#asked = null;
    this.#wanted?.settle(refusal);
    this.#wanted = null;
  }
}
