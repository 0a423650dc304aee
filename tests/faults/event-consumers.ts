import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import type { EventKind } from '../../src/agent-gateway/wire/channels.ts';
import {
  AnomaliesDocument,
  ConsumerError,
  createConsumerClient,
  EventStreamDocument,
} from '../../src/consumer-client/client.ts';
import { type EventSourceReader, openEventSource } from '../streams/event-source.ts';
import type { StreamSeen } from './history.ts';

/** A subscriber to events that comes back to where it was whenever it is cut off. */
export interface EventConsumer {
  readonly seen: StreamSeen;
  stop(): Promise<void>;
}

interface Endpoint {
  readonly url: string;
  readonly token: string;
  /** The cursor to begin at. */
  readonly from: string;
}

/** Long enough for any outage of a test: it gives up never. */
const patience = { patienceMs: 600_000, firstDelayMs: 50, maxDelayMs: 500 };
/** The gateway beats every 12 s. */
const silenceMs = 15_000;

/** Every event, by the typed client, which comes back by itself. */
export function consumeEverything({ url, token, from }: Endpoint): EventConsumer {
  const client = createConsumerClient({ url, token, resume: patience, silenceMs });
  const seen = newSeen('the typed client', from, null);
  void drain(seen, async () => {
    for await (const { events: event } of client.subscribe(EventStreamDocument, {
      after: from,
      includeUntrusted: true,
    })) {
      if (event.__typename === 'StreamGap')
        seen.faults.push(`a gap from ${event.from} to ${event.to}: ${event.reason}`);
      else seen.events.push({ cursor: event.cursor, agent: event.agentId, messageId: event.messageId });
    }
  });
  return { seen, stop: () => client.close() };
}

/** One kind, by the typed client. */
export function consumeAnomalies({ url, token, from }: Endpoint): EventConsumer {
  const client = createConsumerClient({ url, token, resume: patience, silenceMs });
  const seen = newSeen('the subscriber to anomalies', from, ['anomalies']);
  void drain(seen, async () => {
    for await (const { anomalies } of client.subscribe(AnomaliesDocument, { after: from, includeUntrusted: true }))
      seen.events.push({ cursor: anomalies.cursor, agent: anomalies.agentId, messageId: anomalies.messageId });
  });
  return { seen, stop: () => client.close() };
}

const sseQuery = `subscription Everything($after: String) {
  events(after: $after, includeUntrusted: true) {
    __typename
    ... on Event { cursor agentId messageId }
  }
}`;

const sseResult = z.object({
  errors: z.array(z.object({ extensions: z.object({ code: z.string() }) })).optional(),
  data: z
    .object({
      events: z.object({
        __typename: z.string(),
        cursor: z.string().optional(),
        agentId: z.string().optional(),
        messageId: z.string().optional(),
      }),
    })
    .nullish(),
});

/** Every event, over Server-Sent Events, as a browser's EventSource does it: it shows the last id that it was given. */
export function consumeServerSentEvents({ url, token, from }: Endpoint): EventConsumer {
  const seen = newSeen('the EventSource', from, null);
  let reader: EventSourceReader | null = null;
  let lastEventId = '';
  let isStopped = false;

  async function read(): Promise<void> {
    const resume = lastEventId === '' ? {} : { lastEventId };
    const opened = await openEventSource({ url, token, query: sseQuery, variables: { after: from }, ...resume });
    reader = opened;
    let heard = -1;
    const looking = setInterval(() => {
      const now = opened.comments + seen.events.length;
      if (now === heard) opened.cut();
      heard = now;
    }, silenceMs);
    try {
      for await (const { id, type, data } of opened) {
        lastEventId = id;
        if (type === 'next') take(data);
      }
    } finally {
      clearInterval(looking);
    }
  }

  function take(data: string): void {
    const { data: result, errors = [] } = sseResult.parse(JSON.parse(data));
    for (const { extensions } of errors) if (!passingCodes.has(extensions.code)) seen.faults.push(extensions.code);
    if (!result) return;
    const { __typename, cursor, agentId: agent, messageId } = result.events;
    if (cursor !== undefined && agent !== undefined && messageId !== undefined)
      seen.events.push({ cursor, agent, messageId });
    else seen.faults.push(`a ${__typename}`);
  }

  async function readForEver(): Promise<void> {
    while (!isStopped) {
      // The gateway is away, or comes up.
      await read().catch((error) => {
        if (error instanceof z.ZodError) seen.faults.push(String(error));
      });
      await pause(100);
    }
  }

  const reading = readForEver();
  return {
    seen,
    async stop() {
      isStopped = true;
      reader?.cut();
      await reading;
    },
  };
}

/** Of errors that are over when the database or the gateway is back. */
const passingCodes: ReadonlySet<string> = new Set(['INTERNAL_SERVER_ERROR', 'UNAVAILABLE']);

type Growing<Items> = Items extends readonly (infer Item)[] ? Item[] : never;
type Recording = StreamSeen & {
  readonly events: Growing<StreamSeen['events']>;
  readonly faults: Growing<StreamSeen['faults']>;
};

function newSeen(name: string, from: string, kinds: readonly EventKind[] | null): Recording {
  return { name, from, kinds, events: [], faults: [] };
}

async function drain(seen: Recording, read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (error) {
    seen.faults.push(error instanceof ConsumerError ? `it ended with ${error.code}: ${error.message}` : String(error));
  }
}
