import type { Dialect } from './habits.ts';
import type { AgentIdentity } from './identity.ts';
import type { Link } from './link.ts';
import { commandSealingKey } from './v1-commands.ts';
import { handoffSealingKey } from './v1-frames.ts';

/** An authenticated connection with the keys that belong to it, and the timers that die with it. */
export interface Session {
  readonly link: Link;
  /** Seals what a handoff agent sends; without a use in the other dialect. */
  readonly sealingKey: Uint8Array;
  /** Opens commands. */
  readonly openingKey: Uint8Array;
  /** How to cancel each timer, by what it is for. */
  readonly timers: Map<'heartbeat' | 'flap' | 'linger', () => void>;
  cancelTimers(): void;
}

/** Derives the keys of a session from what the authentication gave. */
export function openSession(input: {
  link: Link;
  dialect: Dialect;
  identity: AgentIdentity;
  backendKey: Uint8Array;
  opensCommands: boolean;
}): Session {
  const { suite, seed, key } = input.identity;
  const privateKey = handoffSealingKey(suite, seed, key.publicKey, input.backendKey);
  const sharedKey = commandSealingKey(suite, key.publicKey, input.backendKey);
  const timers: Session['timers'] = new Map();
  return {
    link: input.link,
    sealingKey: privateKey,
    // Whatever it is that older versions derive, it does not open what is sealed for the shared key.
    openingKey: input.dialect === 'enveloped' && input.opensCommands ? sharedKey : privateKey,
    timers,
    cancelTimers() {
      for (const cancel of timers.values()) cancel();
      timers.clear();
    },
  };
}
