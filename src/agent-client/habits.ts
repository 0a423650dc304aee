/** What deployed agents do that a protocol would not ask for, switchable one by one (agent-wire). */

export type Dialect = 'enveloped' | 'handoff';

/** `mixed` takes the short and the long form in turn. */
export type ChannelForm = 'short' | 'long' | 'mixed';

export interface Habits {
  /** Whether an enveloped agent registers. Some never do, and are served all the same. */
  readonly registers: boolean;
  /** How event channels are written. */
  readonly channelForm: ChannelForm;
  /** Who a long channel names: `current` is the name before registration and the uid after it. */
  readonly channelIdentity: 'current' | 'name' | 'uid';
  /** Of an enveloped agent's messages: a constant, which depends on the version, or twelve random bytes. */
  readonly nonce: 'message_nonc' | 'message_nonce' | 'random';
  /** Older versions derive another key, cannot open any command, count an error and go on. */
  readonly opensCommands: boolean;
  /**
   * What follows a drop: `until-refused` dials again after `redialDelayMs` and is stranded by the first attempt that
   * fails, as deployed enveloped agents are; `for-ever` goes on trying; `never` does not dial again.
   */
  readonly reconnects: 'until-refused' | 'for-ever' | 'never';
  /** When the agent begins to replace connections that were fine, for ever: at once, after its first drop, or not. */
  readonly flaps: 'always' | 'after-drop' | 'never';
  /** Whether a connection that is replaced stays open beside the new one, or is cut before the new one is dialled. */
  readonly overlaps: boolean;
  /** Whether the agent goes on reading, and answering pings, on a connection that it has abandoned. */
  readonly readsAbandoned: boolean;
}

/** A well-behaved agent, for tests that look at something else: it flaps never, and is stranded as a real one is. */
export const calmHabits: Habits = {
  registers: true,
  channelForm: 'short',
  channelIdentity: 'current',
  nonce: 'message_nonc',
  opensCommands: true,
  reconnects: 'until-refused',
  flaps: 'never',
  overlaps: true,
  readsAbandoned: false,
};

/** What is in the field, dialect by dialect. */
export const deployedHabits: Readonly<Record<Dialect, Habits>> = {
  enveloped: { ...calmHabits, channelForm: 'mixed', flaps: 'after-drop' },
  handoff: { ...calmHabits, channelForm: 'long', reconnects: 'for-ever', flaps: 'always', overlaps: false },
};

export interface Timings {
  readonly dialTimeoutMs: number;
  /** For each answer during the handshake. */
  readonly answerTimeoutMs: number;
  readonly heartbeatIntervalMs: number;
  /** Without a data frame or a pong to a ping of its own for this long, the agent drops the connection. */
  readonly readDeadlineMs: number;
  /** From a drop to the next dial: the same for all agents, without jitter. */
  readonly redialDelayMs: number;
  /** A flapping agent replaces its connection after a random time between these two. */
  readonly flapMinMs: number;
  readonly flapMaxMs: number;
  /** How long an abandoned connection lives if the other side does not close it. */
  readonly abandonedLingerMs: number;
}

/** The timings of deployed agents. */
export const deployedTimings: Readonly<Record<Dialect, Timings>> = {
  enveloped: {
    dialTimeoutMs: 10_000,
    answerTimeoutMs: 10_000,
    heartbeatIntervalMs: 20_000,
    readDeadlineMs: 60_000,
    redialDelayMs: 7_000,
    flapMinMs: 7_000,
    flapMaxMs: 7_000,
    abandonedLingerMs: 60_000,
  },
  handoff: {
    dialTimeoutMs: 10_000,
    answerTimeoutMs: 10_000,
    heartbeatIntervalMs: 20_000,
    readDeadlineMs: 60_000,
    redialDelayMs: 7_000,
    flapMinMs: 5_000,
    flapMaxMs: 10_000,
    abandonedLingerMs: 60_000,
  },
};
