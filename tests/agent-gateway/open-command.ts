import { commandSealingKey, readCommand } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';

/** The body of the command in a frame, as the agent with this key opens it; or why it drops the frame. */
export function openCommand(publicKey: Uint8Array, backendKey: Uint8Array, frameText: string): unknown {
  const reading = readCommand(nativeCrypto, commandSealingKey(nativeCrypto, publicKey, backendKey), frameText);
  return reading.ok ? reading.command.body : reading.reason;
}
