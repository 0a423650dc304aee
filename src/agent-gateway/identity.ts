import { type GatewayKey, type GatewayKeys, type KeyLocation, readKeys } from './key-files.ts';

/**
 * The gateway's Ed25519 keys as they are at this moment. A link takes `current` once, at its handshake, and keeps that key to
 * its end; what is announced to agents comes from `onChange`.
 */
export interface GatewayIdentity extends GatewayKeys {
  /** Reads the keys again. Throws IdentityError where that fails, and keeps the keys that it has. */
  reload(): void;
  /** Calls back with the keys whenever one of them has changed, until the returned function is called. */
  onChange(listener: (keys: GatewayKeys) => void): () => void;
}

/** Throws IdentityError. */
export function loadIdentity(location: KeyLocation): GatewayIdentity {
  const listeners = new Set<(keys: GatewayKeys) => void>();
  let keys = readKeys(location);
  return {
    get current() {
      return keys.current;
    },
    get next() {
      return keys.next;
    },
    reload() {
      // Keys that nothing keeps would be others each time.
      if (!location.files && location.dataDir === 'memory') return;
      const read = readKeys(location);
      if (isSame(read.current, keys.current) && isSame(read.next, keys.next)) return;
      keys = read;
      for (const listener of [...listeners]) listener(keys);
    },
    onChange(listener) {
      const entry = (changed: GatewayKeys) => listener(changed);
      listeners.add(entry);
      return () => listeners.delete(entry);
    },
  };
}

function isSame(one: GatewayKey | null, other: GatewayKey | null): boolean {
  return one?.fingerprint === other?.fingerprint;
}
