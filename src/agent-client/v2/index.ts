/** An agent of protocol v2, on any JavaScript that has WebSocket, TextEncoder and crypto.getRandomValues. */

export { nobleCrypto } from '../../agent-gateway/crypto/noble.ts';
export type { CryptoSuite } from '../../agent-gateway/crypto/suite.ts';
export type { EventKind } from '../../agent-gateway/wire/channels.ts';
export { connectAgent, maxPayloadBytes, type ReportOptions, type V2Agent } from './agent.ts';
export { AgentError, type AgentErrorCode } from './agent-error.ts';
export type { V2Clock } from './clock.ts';
export type { AgentCommand, CommandHandler } from './command-inbox.ts';
export type { AgentHost, AgentOptions, AgentTimings } from './options.ts';
export type { OutboxLimits } from './outbox.ts';
export type { AgentState, AgentStatistics, AgentStatus } from './status.ts';
export {
  type AgentStore,
  createMemoryStore,
  type JournalEntry,
  type StoredAgent,
  type StoredIdentity,
} from './store.ts';
export {
  type Connection,
  type ConnectionListener,
  type Transport,
  type WebSocketConstructor,
  webSocketTransport,
} from './transport.ts';
