import { randomUUID } from 'node:crypto';
import { createAccess } from '../../src/access/create-access.ts';
import { createRateLimits } from '../../src/access/rate-limits.ts';
import { createAuditLog } from '../../src/audit/create-audit-log.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { Events } from '../../src/events/events.ts';
import { createEnrollmentTokens } from '../../src/fleet/create-enrollment-tokens.ts';
import { createFleet } from '../../src/fleet/create-fleet.ts';
import { createDocuments } from '../../src/http/documents.ts';
import { createGraphqlEndpoint, type GraphqlEndpoint } from '../../src/http/graphql.ts';
import { createHttpServer } from '../../src/http/server.ts';
import { createMessages } from '../../src/messages/create-messages.ts';
import { createConsumerContext } from '../../src/schema/context.ts';
import { buildSchema } from '../../src/schema/schema.ts';
import { openEngine } from '../db/engines.ts';
import { type EventsStage, newEvent, startEvents } from '../events/stage.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';

/** The consumer's side of a gateway, on real parts, with its insides in reach: events are pushed as links push them. */
export interface StreamsStage {
  readonly url: string;
  readonly token: string;
  readonly events: EventsStage;
  readonly graphql: GraphqlEndpoint;
  readonly logged: unknown[];
  /** Stores anomalies, in this order, and resolves when they are on disk; their message ids are `m<number>`. */
  store(numbers: Iterable<number>, payload?: (number: number) => unknown): Promise<void>;
  /** The cursor of each stored event, in order. */
  cursors(): Promise<readonly { readonly cursor: string; readonly messageId: string }[]>;
  /** Resolves when so many subscriptions are live, and no more are counted anywhere. */
  untilLive(count: number): Promise<void>;
  stop(): Promise<void>;
}

export async function startStreamsStage(
  options: {
    /** For the endpoint alone: pings and patience. */
    readonly clock?: Clock;
    /** Puts something before the events that the schema reads. */
    readonly before?: (events: Events) => Events;
  } = {},
): Promise<StreamsStage> {
  const { before = (events: Events) => events } = options;
  const engine = await openEngine(hasPostgres() ? 'postgres' : 'embedded');
  const { database } = engine;
  const events = await startEvents(database, { clock: systemClock });
  const { bus } = events;
  const logged: unknown[] = [];
  const logError = (error: unknown) => logged.push(error);
  const fleet = createFleet({ database, bus, clock: systemClock, logError, defaultOrg: 'default-org' });
  const { messages } = createMessages({
    ...{
      database,
      bus,
      logError,
      defaultOrg: 'default-org',
      clock: systemClock,
      random: Math.random,
      onChanged: () => {},
    },
    ...{ monotonicMs: () => performance.now(), queueSize: 100, retryAttempts: 3, ttlMs: 60_000, retentionMs: 60_000 },
  });
  const statistics = async () => ({
    ...{ since: new Date(), deliveryAttempts: 0, meanDeliveryMs: null },
    ...{ messages: [], events: [], refusedFrames: [] },
  });
  const services = {
    ...{ fleet, messages, events: before(events.events) },
    auditLog: createAuditLog(database),
    enrollmentTokens: createEnrollmentTokens({ database, defaultOrg: 'default-org' }),
    gateway: {
      version: '0.0.0',
      instance: 'stage',
      keys: () => ({ current: { fingerprint: '' }, next: null }),
      statistics,
    },
  };
  const token = randomUUID();
  const access = createAccess({
    ...{ database, bus, logError, clock: systemClock, wall: systemClock, defaultOrg: 'default-org' },
    ...{ adminToken: token, tokenIssuer: null },
  });
  const graphql = createGraphqlEndpoint({
    schema: buildSchema(),
    authenticate: access.authenticate,
    watch: access.watch,
    contextFor: (consumer) => createConsumerContext(consumer, { ...services, apiKeys: access.apiKeys }),
    graphiql: false,
    introspection: true,
    limits: { maxDepth: 15, maxCost: 50_000 },
    rateLimits: createRateLimits({ consumerPerSecond: null, addressPerSecond: null }, null),
    streamLimit: null,
    allowedOrigins: [],
    documents: createDocuments('off', null),
    onOperation: () => {},
    logError,
    ...(options.clock ? { clock: options.clock } : {}),
  });
  const server = createHttpServer(
    {
      agentPath: '/none',
      agentUpgrade: ({ socket }) => socket.destroy(),
      graphql,
      rest: async () => new Response(),
    },
    {
      listenOn: { host: '127.0.0.1', port: 0 },
      tls: null,
      trustProxy: [],
      readBufferBytes: 1_024,
      writeBufferBytes: 1_024,
    },
  );
  const port = await server.listen();
  const agentUid = randomUUID();

  return {
    url: `http://127.0.0.1:${port}`,
    token,
    events,
    graphql,
    logged,
    async store(numbers, payload = (number) => ({ number })) {
      const made = [...numbers].map((number) =>
        newEvent({ agentUid, kind: 'anomalies', messageId: `m${number}`, payload: payload(number) }),
      );
      await events.store(...made);
    },
    async cursors() {
      const rows = await database.sql<{ position: number; message_id: string }[]>`
        select position, message_id from events order by position`;
      return rows.map(({ position, message_id }) => ({
        cursor: Buffer.from(`event:${position}`).toString('base64url'),
        messageId: message_id,
      }));
    },
    async untilLive(count) {
      await eventually(() => events.subscribers === count && graphql.activeSubscriptions() === count, 30_000);
    },
    async stop() {
      await graphql.close();
      await server.close(1_000);
      await events.stop(1_000);
      await bus.close();
      await engine.close();
    },
  };
}
