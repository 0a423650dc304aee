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
});
export type Target = z.infer<typeof target>;

export const command = z.discriminatedUnion('do', [
  /** New agents come, so many at once. Their keys are made and their claims signed before the clock starts. */
  z.object({ do: z.literal('connect'), target, agents: z.int(), atOnce: z.int() }),
  /** All agents go, and all come back, so many at once. */
  z.object({ do: z.literal('reconnect'), target, atOnce: z.int() }),
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
]);
export type Command = z.infer<typeof command>;

export const connected = z.object({ seconds: z.number() });
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

export const failure = z.object({ failed: z.string() });
