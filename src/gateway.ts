import { createAccess } from './access/create-access.ts';
import { createRateLimits } from './access/rate-limits.ts';
import { createSharedCounts, type SharedCounts } from './access/shared-counts.ts';
import { createToldCounts } from './access/told-counts.ts';
import type { AdmissionLimits } from './agent-gateway/admission-gate.ts';
import { createAllowances } from './agent-gateway/allowance.ts';
import { nativeCrypto } from './agent-gateway/crypto/native.ts';
import { createAgentEndpoint } from './agent-gateway/endpoint.ts';
import { type GatewayIdentity, loadIdentity } from './agent-gateway/identity.ts';
import type { GatewayKeys } from './agent-gateway/key-files.ts';
import { createLinks } from './agent-gateway/links.ts';
import { maxGenerationMs } from './agent-gateway/wire/v2-limits.ts';
import { createAuditLog } from './audit/create-audit-log.ts';
import { recordGatewayKeys } from './audit/key-record.ts';
import { createRefusals } from './audit/refusals.ts';
import { createSealer } from './audit/sealer.ts';
import type { Bus } from './bus/bus.ts';
import { createMemoryBus } from './bus/memory-bus.ts';
import { createRedisBus } from './bus/redis-bus.ts';
import { createWorkersBus } from './bus/workers-bus.ts';
import { type Clock, systemClock } from './clock.ts';
import type { Config } from './config.ts';
import { openDatabase } from './db/database.ts';
import { migrate } from './db/migrate.ts';
import { createEvents } from './events/create-events.ts';
import { createAdmissions } from './fleet/create-admissions.ts';
import { createEnrollmentTokens } from './fleet/create-enrollment-tokens.ts';
import { createFleet } from './fleet/create-fleet.ts';
import { createRegistration } from './fleet/create-registration.ts';
import { createPresence } from './fleet/presence.ts';
import { createV1KeyRetention } from './fleet/v1-key-retention.ts';
import { createDocuments } from './http/documents.ts';
import { createGraphqlEndpoint } from './http/graphql.ts';
import { createHttpServer } from './http/server.ts';
import { loadCertificates } from './http/tls.ts';
import { newInstanceId } from './instance-id.ts';
import { createMessages } from './messages/create-messages.ts';
import { createRestApp } from './rest/rest.ts';
import { createConsumerContext } from './schema/context.ts';
import { buildSchema } from './schema/schema.ts';
import { createLinkReport } from './telemetry/link-report.ts';
import type { Logger } from './telemetry/log.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { exposeTogether, reportOf } from './telemetry/together.ts';
import { noTracing, startTracing } from './telemetry/tracing.ts';
import { gatewayVersion } from './version.ts';
import { createWallClock } from './wall-clock.ts';
import type { Siblings } from './workers/siblings.ts';
import { listenFd } from './workers/talk.ts';

/** A running gateway. */
export interface Gateway {
  readonly port: number;
  readonly instanceId: string;
  /** Reads certificates, the gateway's keys and those of the tokens' issuer again. What cannot be read stays as it was. */
  reload(): void;
  /**
   * Takes leave of everyone, writes what is in hand and lets go of everything. Resolves within ten seconds. Where `successors`
   * listen on its port already it accepts nobody from the first moment on, and links are closed a few at a time.
   */
  stop(options?: { readonly successors: boolean }): Promise<void>;
}

export interface GatewayOptions {
  /** It tells what time it is, too, whatever the database's clock shows. */
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Where this is one of several workers on one machine. */
  readonly siblings?: Siblings;
  /** Tests fill a gateway with fewer agents. */
  readonly admission?: AdmissionLimits;
  /** Called with every SQL statement: tests count with it. */
  readonly onStatement?: (text: string) => void;
}

/** Where other gateways run; one alone closes all at once and is back the sooner. */
const leaveLinksMs = 2_000;
const drainLinksMs = 2_000;
const flushEventsMs = 3_000;
const closeServerMs = 1_000;
/** From then on nothing waits any more for a database that does not answer; the rest of a stop takes 4 s at the most. */
const abandonDatabaseMs = 5_000;

/** Builds the parts, starts them, and releases them last-first. The only module that knows them all. */
export async function startGateway(config: Config, logger: Logger, options: GatewayOptions = {}): Promise<Gateway> {
  const clock = options.clock ?? systemClock;
  const wall = createWallClock(clock, {
    ...(options.clock ? { machineMs: () => clock.now(), toleratedMs: Number.POSITIVE_INFINITY } : {}),
    onCorrected: (isCorrected, aheadMs) =>
      isCorrected ? log.warn({ aheadMs }, wrongClockWarning(aheadMs)) : log.warn({ aheadMs }, 'the clocks agree again'),
  });
  const random = options.random ?? Math.random;
  const { siblings } = options;
  const instanceId = siblings?.assignment.instanceId ?? newInstanceId();
  const log = logger.child({ instance: instanceId });
  const logError = (error: unknown, context: string, requestId?: string) =>
    log.error({ err: error, requestId }, context);
  const releases: (() => Promise<void> | void)[] = [];
  const release = async () => {
    for (const step of releases.splice(0).reverse()) {
      try {
        await step();
      } catch (error) {
        logError(error, 'a part could not be released');
      }
    }
  };

  try {
    const identity = loadIdentity({ files: config.identity, dataDir: config.dataDir });
    const documents = createDocuments(config.documents.mode, config.documents.path);
    const certificates = config.tls
      ? loadCertificates(config.tls, {
          ...{ clock: wall, logError },
          onReloaded: (expiresAt) => log.info({ expiresAt }, 'a new TLS certificate is served'),
        })
      : null;
    releases.push(() => certificates?.stop());
    const database = await openDatabase({ ...config, onStatement: options.onStatement });
    releases.push(() => database.close());
    await migrate(database);
    const unbound = await database.bindOrganisations();
    if (unbound !== null && !database.embedded)
      log.warn({ reason: unbound }, 'Postgres does not hold consumers to their organisations: see docs/ACCESS.md');
    const sealer = createSealer({ database, clock, retentionMs: config.auditRetentionMs, logError });
    sealer.start();
    releases.push(() => sealer.stop());
    const refusals = createRefusals({ database, clock: wall, logError });
    refusals.start();
    releases.push(() => refusals.stop());
    const recordKeys = ({ current, next }: GatewayKeys) =>
      recordGatewayKeys(database, { current: current.fingerprint, next: next?.fingerprint ?? null });
    await recordKeys(identity);
    const bus = await openBus(identity);
    releases.push(() => bus.close());

    const tracing = config.otlpEndpoint
      ? await startTracing(config.otlpEndpoint, { clock: wall, instanceId, version: gatewayVersion })
      : noTracing;
    releases.push(() => tracing.stop());

    const policy = { ...config };
    const noteRefusal = refusals.note;
    const presence = createPresence({
      ...{ database, bus, clock, wall, instanceId, logError },
      ...(siblings ? { family: siblings.assignment.family } : {}),
      version: gatewayVersion,
      sessionTimeoutMs: config.sessionTimeoutMs,
      onUnheard: (instances) => log.warn({ instances }, unheardWarning),
    });
    await presence.start();
    releases.push(() => presence.stop());
    const v1KeyRetention = createV1KeyRetention({ database, clock, logError });
    v1KeyRetention.start();
    releases.push(() => v1KeyRetention.stop());
    const fleet = createFleet({ database, bus, clock, logError, defaultOrg: config.defaultOrg });
    const admissions = createAdmissions({ database, wall, policy, instanceId, presence, noteRefusal });
    const enrollmentTokens = createEnrollmentTokens({ database, defaultOrg: config.defaultOrg });
    const registration = createRegistration({ database, wall, policy, signatures: nativeCrypto, noteRefusal });

    const metrics = createMetrics({
      links: (protocol) => links.countOf(protocol),
      unauthenticated: () => agentEndpoint.unauthenticated,
      upgradesHeld: () => agentEndpoint.held,
      exhaustedAddresses: () => agentEndpoint.exhaustedAddresses,
      agentsPaused: () => links.paused,
      eventsWaiting: () => eventsPart.ingest.waiting,
      subscriptions: () => eventsPart.subscribers,
      busPeers: () => bus.peers.length,
      busHintsLost: () => bus.lost,
      certificateExpiresAt: () => certificates?.expiresAt ?? null,
      clockAheadMs: () => wall.aheadMs,
    });
    const eventsPart = createEvents({
      ...{ database, bus, clock, wall, logError },
      onStored(events, startedAt) {
        for (const { kind } of events) metrics.eventStored(kind);
        tracing.eventsStored(events, startedAt);
      },
      retentionMs: config.eventRetentionMs,
    });
    await eventsPart.start();
    releases.push(() => eventsPart.stop(flushEventsMs));
    const { messages, dispatch, upkeep } = createMessages({
      ...{ database, bus, clock, random, logError },
      defaultOrg: config.defaultOrg,
      monotonicMs: () => performance.now(),
      queueSize: config.messageQueueSize,
      retryAttempts: config.messageRetryAttempts,
      ttlMs: config.messageTtlMs,
      retentionMs: config.messageRetentionMs,
      onChanged(changed) {
        for (const message of changed) {
          metrics.messageChanged(message);
          tracing.messageChanged(message);
        }
      },
    });
    dispatch.start();
    releases.push(() => dispatch.stop());
    upkeep.start();
    releases.push(() => upkeep.stop());

    const report = createLinkReport(log, metrics, clock);
    releases.push(() => report.stop());
    const linkContext = {
      ...{ clock, wall, admissions, registration, dispatch, report, noteRefusal, identity },
      suite: nativeCrypto,
      allowances: createAllowances(clock, config.agentAllowance),
      ingest: eventsPart.ingest,
      clockSkewMs: config.clockSkewMs,
      v2: {
        deploymentId: config.deploymentId,
        tlsExporter: config.tlsExporter,
        rekeyAfterMs: Math.min(maxGenerationMs, config.keyRotationIntervalMs),
      },
      agentExists: async (orgId: string, ref: string) => (await fleet.find({ orgId }, ref)) !== null,
    };
    const links = createLinks(linkContext, bus);
    links.start();
    const agentEndpoint = createAgentEndpoint(linkContext, links, {
      ...{ v1: config.agentV1, random, admission: options.admission },
    });

    siblings?.answerWith(async () => reportOf(siblings.assignment.number, await metrics.values()));

    let isDraining = false;
    let hasSuccessors = false;
    const access = createAccess({
      ...{ database, bus, clock, wall, logError },
      defaultOrg: config.defaultOrg,
      adminToken: config.adminToken?.token ?? null,
      tokenIssuer: config.tokenIssuer,
    });
    access.start();
    releases.push(() => access.stop());
    const { authenticate, apiKeys } = access;
    const sharedCounts = openSharedCounts();
    releases.push(() => sharedCounts?.close());
    const rateLimits = createRateLimits(config.rateLimits, sharedCounts);
    const services = {
      ...{ apiKeys, fleet, enrollmentTokens, messages },
      auditLog: createAuditLog(database),
      events: eventsPart.events,
      gateway: {
        version: gatewayVersion,
        instance: instanceId,
        keys: () => identity,
        statistics: () => metrics.statistics(),
      },
    };
    const graphql = createGraphqlEndpoint({
      schema: buildSchema(),
      authenticate,
      watch: access.watch,
      contextFor: (consumer) => createConsumerContext(consumer, services),
      graphiql: !config.production,
      introspection: !config.production,
      limits: config.graphqlLimits,
      clock: wall,
      ...{ documents, rateLimits },
      streamLimit: config.streamLimit,
      allowedOrigins: config.allowedOrigins,
      logError,
      onOperation: tracing.operationEnded,
    });
    const rest = createRestApp({
      ...{ authenticate, rateLimits, fleet, registration, messages, clock, logError },
      version: gatewayVersion,
      metrics: async () => (siblings ? exposeTogether(await siblings.gather()) : metrics.expose()),
      async readiness() {
        const checks = {
          gateway: isDraining ? 'draining' : 'ok',
          database: await answers(database.ping),
          bus: await answers(() => bus.check()),
        };
        const ready = Object.values(checks).every((check) => check === 'ok');
        return {
          ready,
          checks,
          warnings: [
            ...(certificates?.warnings() ?? []),
            ...(presence.unheard.length > 0 ? [unheardWarning] : []),
            ...(wall.isCorrected && wall.aheadMs !== null ? [wrongClockWarning(wall.aheadMs)] : []),
          ],
        };
      },
    });
    const server = createHttpServer(
      { agentPath: config.agentPath, agentUpgrade: agentEndpoint.upgrade, graphql, rest: rest.fetch },
      {
        listenOn: siblings ? { fd: listenFd } : { host: config.listenHost, port: config.listenPort },
        tls: certificates,
        ticketKeys: siblings && Buffer.from(siblings.assignment.ticketKeys, 'base64'),
        trustProxy: config.trustProxy,
        readBufferBytes: config.socketReadBufferBytes,
        writeBufferBytes: config.socketWriteBufferBytes,
      },
    );
    // Released in the reverse order: links and subscriptions end while the listener still answers, the listener goes last.
    releases.push(() => server.close(closeServerMs));
    releases.push(() => links.closeAll({ timeoutMs: drainLinksMs }));
    releases.push(() => agentEndpoint.close());
    releases.push(() => links.letGo({ overMs: hasSuccessors || presence.hasOthers ? leaveLinksMs : 0 }));
    releases.push(() => graphql.close());
    const port = await server.listen();

    return {
      port,
      instanceId,
      reload() {
        certificates?.reload();
        void access.reload();
        try {
          identity.reload();
          const { current, next } = identity;
          log.info({ current: current.fingerprint, next: next?.fingerprint ?? null }, 'the keys were read again');
          recordKeys(identity).catch((error) => logError(error, 'the keys could not be put on record'));
        } catch (error) {
          logError(error, 'the keys could not be read again; those from before stay in use');
        }
      },
      async stop({ successors } = { successors: false }) {
        hasSuccessors = successors;
        // Where others listen here, who asks whether the machine is ready is not told of one that leaves.
        if (successors) server.stopListening();
        else isDraining = true;
        const cancel = clock.after(abandonDatabaseMs, () => database.abandon());
        await release();
        cancel();
      },
    };
  } catch (error) {
    await release();
    throw error;
  }

  async function openBus(identity: GatewayIdentity): Promise<Bus> {
    const deps = { instanceId, clock, logError };
    if (config.redis) {
      const secretOf = ({ current }: GatewayKeys) => current.secretFor('aegis: what gateways tell each other');
      let secret = secretOf(identity);
      releases.push(
        identity.onChange((keys) => {
          secret = secretOf(keys);
        }),
      );
      return createRedisBus(config.redis, { ...deps, secret: () => secret });
    }
    if (!siblings) return createMemoryBus(logError);
    return createWorkersBus({ hints: siblings.channel('bus'), bodies: siblings.channel('bodies') }, deps);
  }

  function openSharedCounts(): SharedCounts | null {
    if (config.redis) return createSharedCounts(config.redis, { clock, logError });
    return siblings ? createToldCounts(siblings.channel('counts'), { clock, logError }) : null;
  }
}

const readinessTimeoutMs = 2_000;
const unheardWarning =
  'other gateways run on this database, and no bus brings what they tell: news between them takes seconds (REDIS_URL)';

function wrongClockWarning(aheadMs: number): string {
  const seconds = Math.round(Math.abs(aheadMs) / 1_000);
  const side = aheadMs > 0 ? 'ahead of' : 'behind';
  return `this machine's clock is ${seconds} s ${side} the database's, whose time is used in its place: set one of them right`;
}

/** `ok`, or that a part does not answer: what it says is for the log, not for anyone who asks. */
async function answers(ask: () => Promise<unknown>): Promise<string> {
  const { promise: timeout, cancel } = rejectAfter(readinessTimeoutMs);
  try {
    await Promise.race([ask(), timeout]);
    return 'ok';
  } catch {
    return 'does not answer';
  } finally {
    cancel();
  }
}

function rejectAfter(timeoutMs: number): { promise: Promise<never>; cancel: () => void } {
  let cancel = () => {};
  const promise = new Promise<never>((_resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('timed out')), timeoutMs);
    cancel = () => clearTimeout(timer);
  });
  return { promise, cancel };
}
