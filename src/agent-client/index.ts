/** An agent in TypeScript, as deployed ones behave on the wire; what tests, demo, simulator and load drive a gateway with. */
export type { AgentEvent, AgentEventOf, AgentEventType, AgentState, ReceivedCommand } from './agent-events.ts';
export { AgentFailure, type AgentFailureCode } from './agent-failure.ts';
export { type AgentClock, systemClock } from './clock.ts';
export { encodeGoJson, type JsonValue } from './go-json.ts';
export {
  type ChannelForm,
  calmHabits,
  type Dialect,
  deployedHabits,
  deployedTimings,
  type Habits,
  type Timings,
} from './habits.ts';
export type { Registration } from './identity.ts';
export { Journal, type WaitOptions } from './journal.ts';
export type { EventOptions } from './message-composer.ts';
export { type SimulationOptions, type SimulationTotals, simulate } from './simulate.ts';
export { createTelemetry, type Report, type Telemetry } from './telemetry.ts';
export { type SentEvent, startV1Agent, V1Agent } from './v1-agent.ts';
export {
  type CommandReading,
  commandSealingKey,
  type DropReason,
  type OpenedCommand,
  readCommand,
} from './v1-commands.ts';
export * from './v1-frames.ts';
export type { HostFacts, V1AgentOptions } from './v1-options.ts';
