/** An agent of protocol v2 on Node: what is portable, with `ws` and the native cryptography by default, and a store of files. */
import { nativeCrypto } from '../../../agent-gateway/crypto/native.ts';
import { type AgentOptions, connectAgent as connectPortably, type V2Agent } from '../index.ts';
import { wsTransport } from './ws-transport.ts';

export { nativeCrypto } from '../../../agent-gateway/crypto/native.ts';
export * from '../index.ts';
export { createFileStore } from './file-store.ts';
export { wsTransport } from './ws-transport.ts';

export type NodeAgentOptions = Omit<AgentOptions, 'transport'> & Partial<Pick<AgentOptions, 'transport'>>;

/** As the portable one. `transport` is `wsTransport()` and `crypto` is `nativeCrypto` where absent. */
export function connectAgent(options: NodeAgentOptions): Promise<V2Agent> {
  return connectPortably({ transport: wsTransport(), crypto: nativeCrypto, ...options });
}
