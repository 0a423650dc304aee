import { z } from 'zod';

/**
 * What the benchmark and its load generator, a process of its own, say to each other: one command at a time, one reply to each.
 */

/** Where a server is found, and how its subscriber speaks. */
const target = z.object({
  agentUrl: z.string(),
  subscriberUrl: z.string(),
  /** Null: a bare WebSocket that is sent every event. Otherwise graphql-transport-ws, with this bearer token. */
  graphqlToken: z.string().nullable(),
  /** Where commands are sent over HTTP; null where the server knows none. */
  commandUrl: z.string().nullable(),
  /** The same of other gateways on the same database, whose agents' confirmations they count. */
  siblingUrls: z.array(z.string()).optional(),
});
export type Target = z.infer<typeof target>;

export const command = z.discriminatedUnion('do', [
  /** New agents come, so many at once. Their keys are made and their claims signed before the clock starts. */
  z.object({ do: z.literal('connect'), target, agents: z.int(), atOnce: z.int() }),
  /** All agents go, and all come back, so many at once. */
  z.object({ do: z.literal('reconnect'), target, atOnce: z.int() }),
  /** All agents go, and all dial at the same moment, as deployed ones do; one that gives up is a failure. */
  z.object({ do: z.literal('storm'), target }),
  /** New agents come one after the other, with a pause between them. */
  z.object({ do: z.literal('connect one by one'), target, agents: z.int(), pauseMs: z.number() }),
  /** The agents send events, signed before the clock starts, to one subscriber. */
  z.object({
    do: z.literal('send events'),
    target,
    events: z.int(),
    /** Null: as fast as it goes. */
    perSecond: z.number().nullable(),
    /**
     * Deployed agents sign identity, second and a constant nonce, so that frames of one second carry one signature. Spread, each
     * frame of an agent is of another second, within what clocks may differ, and carries a signature of its own.
     */
    spreadSeconds: z.boolean(),
  }),
  /** One consumer sends commands to the agents in turn, and waits until the server knows what became of all of them. */
  z.object({
    do: z.literal('send commands'),
    target,
    commands: z.int(),
    pace: z.union([
      /** As fast as the server answers, with so many requests under way. */
      z.object({ atOnce: z.int() }),
      /** So many each second, whatever becomes of those before. */
      z.object({ perSecond: z.number() }),
    ]),
  }),
  /** One command to all agents. */
  z.object({ do: z.literal('broadcast'), target }),
]);
export type Command = z.infer<typeof command>;
export type CommandPace = Extract<Command, { do: 'send commands' }>['pace'];

export const connected = z.object({ seconds: z.number() });
/** From the first dial to the last answer, and the longest that one agent took. */
export const weathered = z.object({ seconds: z.number(), slowestMs: z.number() });
export const connectedOneByOne = z.object({ handshakesMs: z.array(z.number()) });
export const delivered = z.object({
  sent: z.int(),
  lost: z.int(),
  duplicated: z.int(),
  /** From the first event sent to the last one received. */
  seconds: z.number(),
  sendingSeconds: z.number(),
  /** From the moment before an event goes to its socket until the subscriber has read it. */
  p50Ms: z.number(),
  p99Ms: z.number(),
  slowestMs: z.number(),
});
export type Delivered = z.infer<typeof delivered>;

/** What became of commands that a server has accepted. */
const commandsRead = {
  sent: z.int(),
  /** Never read by its agent. */
  lost: z.int(),
  /** Read once more, or never accepted. */
  duplicated: z.int(),
};
export const commanded = z.object({
  ...commandsRead,
  /** From the first request until the last answer, and until the server knew the last one to be read. */
  acceptedSeconds: z.number(),
  confirmedSeconds: z.number(),
  /** From before a request is written until the agent has read the command. */
  p50Ms: z.number(),
  p99Ms: z.number(),
});
export type Commanded = z.infer<typeof commanded>;

export const broadcasted = z.object({
  ...commandsRead,
  /** From before the request is written until the server knew it to be read by all agents, and until they had read it. */
  confirmedSeconds: z.number(),
  readSeconds: z.number(),
});
export type Broadcasted = z.infer<typeof broadcasted>;

export const failure = z.object({ failed: z.string() });
