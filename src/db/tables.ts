import { sql } from 'drizzle-orm';
import {
  bigint,
  bigserial,
  boolean,
  index,
  integer,
  json,
  jsonb,
  pgTable,
  primaryKey,
  smallint,
  text,
  timestamp,
  unique,
  uniqueIndex,
  uuid,
  varchar,
} from 'drizzle-orm/pg-core';

/**
 * Every table. `agent_connections`, `message_queue` and `communication_channels` have the names, columns, defaults and
 * indexes that were asked for, and more columns. Wherever a column is called `agent_id` it holds the agent's uid.
 */

const at = (name: string) => timestamp(name, { withTimezone: true });
const id = (name: string) => uuid(name);
/**
 * The organisation of the agent that a row is about, for row-level security: it compares with the row itself and looks nowhere
 * else. Triggers give it where a statement of an earlier release does not, and change it where the agent moves. Null: there is no
 * such agent.
 */
const agentOrgId = () => varchar('agent_org_id', { length: 255 });

/** Who the agents are. */
export const agents = pgTable(
  'agents',
  {
    uid: id('uid').primaryKey().defaultRandom(),
    /**
     * The uid as other tables have it in `agent_id`, to join them by: where row-level security holds, Postgres uses no index for
     * what it would have to cast first.
     */
    uidText: text('uid_text').notNull().generatedAlwaysAs(sql`uid::text`),
    orgId: varchar('org_id', { length: 255 }).notNull(),
    name: varchar('name', { length: 255 }).notNull(),
    hostId: varchar('host_id', { length: 255 }),
    hostname: varchar('hostname', { length: 255 }),
    version: varchar('version', { length: 255 }),
    machineIdHash: varchar('machine_id_hash', { length: 255 }),
    platform: jsonb('platform'),
    network: jsonb('network'),
    capabilities: jsonb('capabilities'),
    labels: text('labels').array().notNull().default(sql`'{}'`),
    note: text('note'),
    enrollment: varchar('enrollment', { length: 16 }).$type<'pending' | 'approved' | 'revoked'>().notNull(),
    revokedReason: text('revoked_reason'),
    revokedAt: at('revoked_at'),
    /** An operator wants the agent's links closed that have this epoch or an earlier one. */
    disconnectEpoch: bigint('disconnect_epoch', { mode: 'number' }),
    disconnectAskedAt: at('disconnect_asked_at'),
    /** Standard base64 of the 32 raw bytes; trusted where `enrollment` is approved. */
    publicKey: text('public_key').notNull(),
    keyFingerprint: varchar('key_fingerprint', { length: 64 }).notNull(),
    /** The protocol over which the key on record was shown. */
    keyProtocol: varchar('key_protocol', { length: 2 }).$type<'v1' | 'v2'>().notNull().default('v1'),
    /** The key that the agent has named, inside its v2 session, as its next one. */
    successorKeyFingerprint: varchar('successor_key_fingerprint', { length: 64 }),
    /** Since when a v2 key of the agent is trusted, and v1 refused. */
    v2Since: at('v2_since'),
    /** Whether the next unknown key is to be trusted, once (`resetAgentKey`). */
    keyReset: boolean('key_reset').notNull().default(false),
    dialect: varchar('dialect', { length: 16 }).$type<'handoff' | 'enveloped'>(),
    /** Counts the agent's links; the highest one owns the agent. */
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    registeredAt: at('registered_at'),
    createdAt: at('created_at').notNull().defaultNow(),
    updatedAt: at('updated_at').notNull().defaultNow(),
  },
  (table) => [
    unique('agents_org_id_name').on(table.orgId, table.name),
    index('idx_agents_name').on(table.name, table.uid),
    index('idx_agents_pending').on(table.orgId).where(sql`enrollment = 'pending'`),
    index('idx_agents_revoked_at').on(table.revokedAt).where(sql`revoked_at is not null`),
    index('idx_agents_disconnect_asked_at').on(table.disconnectAskedAt).where(sql`disconnect_asked_at is not null`),
    index('idx_agents_labels').using('gin', table.labels),
  ],
);

/** Keys that were trusted, now or earlier: what a bootstrap token's key must be among. */
export const agentKeys = pgTable(
  'agent_keys',
  {
    agentUid: id('agent_uid')
      .notNull()
      .references(() => agents.uid, { onDelete: 'cascade' }),
    keyFingerprint: varchar('key_fingerprint', { length: 64 }).notNull(),
    protocol: varchar('protocol', { length: 2 }).$type<'v1' | 'v2'>().notNull(),
    approvedAt: at('approved_at').notNull().defaultNow(),
    agentOrgId: agentOrgId(),
  },
  (table) => [primaryKey({ columns: [table.agentUid, table.keyFingerprint] })],
);

/** Keys under known names that wait for approval, the newest one of each protocol: a stranger on v2 displaces no key of v1. */
export const agentPendingKeys = pgTable(
  'agent_pending_keys',
  {
    agentUid: id('agent_uid')
      .notNull()
      .references(() => agents.uid, { onDelete: 'cascade' }),
    protocol: varchar('protocol', { length: 2 }).$type<'v1' | 'v2'>().notNull(),
    publicKey: text('public_key').notNull(),
    keyFingerprint: varchar('key_fingerprint', { length: 64 }).notNull(),
    since: at('since').notNull().defaultNow(),
    agentOrgId: agentOrgId(),
  },
  (table) => [primaryKey({ columns: [table.agentUid, table.protocol] })],
);

/**
 * Every key with which somebody has signed on v1, let in or not: such a key proves nothing on v2 (docs/MIGRATION.md). Those on
 * record for no agent are forgotten after half a year.
 */
export const v1Keys = pgTable(
  'v1_keys',
  {
    keyFingerprint: varchar('key_fingerprint', { length: 64 }).primaryKey(),
    seenAt: at('seen_at').notNull().defaultNow(),
  },
  // Rows come in the order of their time: a few bytes for each hundred of them do.
  (table) => [index('idx_v1_keys_seen_at').using('brin', table.seenAt)],
);

/** Single-use tokens with which v2 agents enrol. */
export const enrollmentTokens = pgTable(
  'enrollment_tokens',
  {
    id: id('id').primaryKey().defaultRandom(),
    tokenHash: varchar('token_hash', { length: 64 }).notNull().unique(),
    orgId: varchar('org_id', { length: 255 }).notNull(),
    /** The one name that it is good for, also where the name is known; null: any new name. */
    agentName: varchar('agent_name', { length: 255 }),
    note: text('note'),
    createdAt: at('created_at').notNull().defaultNow(),
    expiresAt: at('expires_at').notNull(),
    usedAt: at('used_at'),
    usedBy: id('used_by').references(() => agents.uid, { onDelete: 'set null' }),
    revokedAt: at('revoked_at'),
    /** The order of their making, for pages. */
    sequence: bigserial('sequence', { mode: 'number' }).notNull().unique(),
  },
  (table) => [
    index('idx_enrollment_tokens_org').on(table.orgId, table.sequence),
    index('idx_enrollment_tokens_used_by').on(table.usedBy).where(sql`used_by is not null`),
  ],
);

/** Credentials of consumers. */
export const apiKeys = pgTable(
  'api_keys',
  {
    id: id('id').primaryKey().defaultRandom(),
    /** Hex SHA-256 of the whole key. */
    keyHash: varchar('key_hash', { length: 64 }).notNull().unique(),
    /** With which the key begins; no secret. */
    prefix: varchar('prefix', { length: 32 }).notNull(),
    name: varchar('name', { length: 255 }).notNull(),
    /** Null: of every organisation. */
    orgId: varchar('org_id', { length: 255 }),
    scopes: text('scopes').array().notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    createdBy: text('created_by').notNull(),
    expiresAt: at('expires_at'),
    lastUsedAt: at('last_used_at'),
    revokedAt: at('revoked_at'),
    /** The order of their making, for pages. */
    sequence: bigserial('sequence', { mode: 'number' }).notNull().unique(),
  },
  (table) => [index('idx_api_keys_org').on(table.orgId, table.sequence)],
);

/** Hashes of the bootstrap tokens that registration gave out, one for each agent's key. */
export const bootstrapTokens = pgTable(
  'bootstrap_tokens',
  {
    tokenHash: varchar('token_hash', { length: 64 }).primaryKey(),
    agentUid: id('agent_uid')
      .notNull()
      .references(() => agents.uid, { onDelete: 'cascade' }),
    keyFingerprint: varchar('key_fingerprint', { length: 64 }).notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    agentOrgId: agentOrgId(),
  },
  (table) => [uniqueIndex('bootstrap_tokens_agent_key').on(table.agentUid, table.keyFingerprint)],
);

/** Challenges of registrations under way. */
export const registrations = pgTable(
  'registrations',
  {
    id: id('id').primaryKey().defaultRandom(),
    orgId: varchar('org_id', { length: 255 }).notNull(),
    hostId: varchar('host_id', { length: 255 }).notNull(),
    publicKey: text('public_key').notNull(),
    nonce: text('nonce').notNull(),
    serverTime: varchar('server_time', { length: 32 }).notNull(),
    /** What else the agent said of itself. */
    details: jsonb('details').notNull(),
    expiresAt: at('expires_at').notNull(),
  },
  (table) => [index('idx_registrations_expires_at').on(table.expiresAt)],
);

/** Authentication nonces seen; a row is kept until the clock check alone would refuse its request. */
export const authNonces = pgTable(
  'auth_nonces',
  {
    nonce: varchar('nonce', { length: 64 }).primaryKey(),
    expiresAt: at('expires_at').notNull(),
    /** The handshake that showed it, so that its second try is told from a replay. */
    attemptId: id('attempt_id'),
  },
  (table) => [index('idx_auth_nonces_expires_at').on(table.expiresAt)],
);

/** Running gateways, each with a lease that it renews. */
export const instances = pgTable('instances', {
  id: varchar('id', { length: 255 }).primaryKey(),
  version: varchar('version', { length: 64 }).notNull(),
  startedAt: at('started_at').notNull().defaultNow(),
  leaseUntil: at('lease_until').notNull(),
});

/** The link that owns each agent, or its last one. */
export const agentConnections = pgTable(
  'agent_connections',
  {
    id: id('id').primaryKey().defaultRandom(),
    agentId: varchar('agent_id', { length: 255 }).notNull().unique(),
    publicKey: text('public_key').notNull(),
    /** A hash. */
    sessionToken: varchar('session_token', { length: 255 }).notNull(),
    connectedAt: at('connected_at').notNull().defaultNow(),
    lastSeen: at('last_seen').notNull().defaultNow(),
    isActive: boolean('is_active').notNull().default(true),
    metadata: jsonb('metadata'),
    createdAt: at('created_at').notNull().defaultNow(),
    updatedAt: at('updated_at').notNull().defaultNow(),
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    instanceId: varchar('instance_id', { length: 255 }).notNull(),
    protocol: varchar('protocol', { length: 2 }).$type<'v1' | 'v2'>().notNull(),
    remoteAddress: varchar('remote_address', { length: 64 }),
    sessionExpiresAt: at('session_expires_at').notNull(),
    /** When the agent was last heard over links of the protocol that this one does not speak; `last_seen` is of this one. */
    lastV1At: at('last_v1_at'),
    lastV2At: at('last_v2_at'),
    /** When the agent last came or went, and why; a link that takes over from another changes neither. */
    presenceAt: at('presence_at'),
    presenceReason: text('presence_reason'),
    agentOrgId: agentOrgId(),
  },
  (table) => [
    index('idx_agent_connections_agent_id').on(table.agentId),
    index('idx_agent_connections_active').on(table.isActive),
    index('idx_agent_connections_instance').on(table.instanceId).where(sql`is_active`),
    index('idx_agent_connections_presence').on(table.presenceAt, table.agentId),
  ],
);

/** What is sent to agents, and what became of it. */
export const messageQueue = pgTable(
  'message_queue',
  {
    id: id('id').primaryKey().defaultRandom(),
    agentId: varchar('agent_id', { length: 255 }).notNull(),
    /** Short form, `backend.policies`: a name can be too long for the column. */
    channel: varchar('channel', { length: 255 }).notNull(),
    messageType: varchar('message_type', { length: 50 }).$type<'request' | 'response' | 'event'>().notNull(),
    /** JSON. */
    payload: text('payload').notNull(),
    /** These three record the frame last written to the agent; empty until there is one. */
    encryptedPayload: text('encrypted_payload').notNull(),
    nonce: text('nonce').notNull(),
    signature: text('signature').notNull(),
    status: varchar('status', { length: 50 })
      .$type<'pending' | 'sent' | 'delivered' | 'failed' | 'expired' | 'cancelled'>()
      .notNull()
      .default('pending'),
    /** Attempts beyond the first. */
    retryCount: integer('retry_count').notNull().default(0),
    maxRetries: integer('max_retries').notNull().default(3),
    createdAt: at('created_at').notNull().defaultNow(),
    /** When it became final. */
    processedAt: at('processed_at'),
    expiresAt: at('expires_at').notNull().default(sql`now() + interval '1 hour'`),
    sequence: bigserial('sequence', { mode: 'number' }).notNull(),
    orgId: varchar('org_id', { length: 255 }).notNull(),
    agentName: varchar('agent_name', { length: 255 }).notNull(),
    priority: smallint('priority').notNull(),
    attempts: integer('attempts').notNull().default(0),
    /** How often its status has changed since it was accepted; a trigger counts. */
    revision: integer('revision').notNull().default(0),
    /** The latest of these changes, `[revision, status, milliseconds since 1970, attempts, failure]` each; a trigger adds them. */
    history: jsonb('history').notNull().default([]),
    /** The epoch of the link that it was last written to. */
    epoch: bigint('epoch', { mode: 'number' }),
    /** Not before this is it tried again. */
    notBefore: at('not_before'),
    sentAt: at('sent_at'),
    deliveredAt: at('delivered_at'),
    failure: text('failure'),
    broadcastId: id('broadcast_id'),
    /** Of a paced broadcast whose turn has not come: nobody sends it, and it holds up nothing. */
    held: boolean('held').notNull().default(false),
    idempotencyKey: varchar('idempotency_key', { length: 255 }),
    /** SHA-256 of what the idempotency key stands for. */
    requestHash: varchar('request_hash', { length: 64 }),
    /** Where the request that sent it stands in a trace, as W3C Trace Context writes it. */
    traceparent: varchar('traceparent', { length: 55 }),
  },
  (table) => [
    index('idx_message_queue_agent_id').on(table.agentId),
    index('idx_message_queue_status').on(table.status),
    index('idx_message_queue_created_at').on(table.createdAt),
    index('idx_message_queue_agent_sequence').on(table.agentId, table.sequence),
    index('idx_message_queue_broadcast')
      .on(table.broadcastId, table.status, table.sequence)
      .where(sql`broadcast_id is not null`),
    index('idx_message_queue_held').on(table.broadcastId, table.sequence).where(sql`processed_at is null and held`),
    /** What is final, by age: retention reads it. */
    index('idx_message_queue_processed_at').on(table.processedAt).where(sql`processed_at is not null`),
    /**
     * What is not final: the only part that dispatch and expiry read. With the organisation, so that row-level security too can
     * count an agent's messages without a look at them.
     */
    index('idx_message_queue_open')
      .on(table.agentId, table.priority.desc().nullsFirst(), table.sequence, table.orgId)
      .where(sql`processed_at is null`),
    index('idx_message_queue_open_expiry').on(table.expiresAt).where(sql`processed_at is null`),
    uniqueIndex('message_queue_idempotency')
      .on(table.orgId, table.idempotencyKey)
      .where(sql`idempotency_key is not null`),
  ],
);

/** One draft sent to many agents. */
export const broadcasts = pgTable(
  'broadcasts',
  {
    id: id('id').primaryKey().defaultRandom(),
    /** Null: of every organisation. */
    orgId: varchar('org_id', { length: 255 }),
    channel: varchar('channel', { length: 255 }).notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    idempotencyKey: varchar('idempotency_key', { length: 255 }),
    requestHash: varchar('request_hash', { length: 64 }),
    state: varchar('state', { length: 16 })
      .$type<'running' | 'cancelling' | 'cancelled' | 'aborting' | 'aborted' | 'finished'>()
      .notNull()
      .default('running'),
    abortedReason: text('aborted_reason'),
    /** Null: all at once. */
    ratePerSecond: integer('rate_per_second'),
    /** What the rate allowed until then has been released. */
    releasedUntil: at('released_until').notNull().defaultNow(),
    /** Null: never. */
    abortAtFailurePercent: integer('abort_at_failure_percent'),
    /** Messages that failed when they were accepted. */
    failedAtOnce: integer('failed_at_once').notNull().default(0),
    payloadBytes: integer('payload_bytes').notNull().default(0),
    /** When its last message became final. */
    finishedAt: at('finished_at'),
  },
  (table) => [
    uniqueIndex('broadcasts_idempotency')
      .on(sql`coalesce(org_id, '')`, table.idempotencyKey)
      .where(sql`idempotency_key is not null`),
    index('idx_broadcasts_live').on(table.id).where(sql`finished_at is null`),
    index('idx_broadcasts_finished_at').on(table.finishedAt).where(sql`finished_at is not null`),
  ],
);

/**
 * How many messages of each broadcast are in each status: the sum of `count` over the rows of both. A trigger on
 * `message_queue` adds what each statement changed, so nobody waits for a shared row; upkeep folds them together.
 */
export const broadcastCounts = pgTable(
  'broadcast_counts',
  {
    broadcastId: id('broadcast_id').notNull(),
    status: varchar('status', { length: 50 }).notNull(),
    count: integer('count').notNull(),
  },
  (table) => [index('idx_broadcast_counts_broadcast').on(table.broadcastId)],
);

/** The sixteen channels of each agent; an operator may switch one off. */
export const communicationChannels = pgTable(
  'communication_channels',
  {
    id: id('id').primaryKey().defaultRandom(),
    agentId: varchar('agent_id', { length: 255 }).notNull(),
    /** Long form by uid: a name can be too long for the column. */
    channelName: varchar('channel_name', { length: 255 }).notNull(),
    channelType: varchar('channel_type', { length: 50 }).$type<'agent_to_backend' | 'backend_to_agent'>().notNull(),
    isActive: boolean('is_active').notNull().default(true),
    createdAt: at('created_at').notNull().defaultNow(),
    updatedAt: at('updated_at').notNull().defaultNow(),
    agentOrgId: agentOrgId(),
  },
  (table) => [
    unique('communication_channels_agent_id_channel_name').on(table.agentId, table.channelName),
    index('idx_communication_channels_agent_id').on(table.agentId),
    index('idx_communication_channels_type').on(table.channelType),
    index('idx_communication_channels_closed').on(table.agentId).where(sql`not is_active`),
  ],
);

/** How far the stream of events has come. One row: to write events is to hold it, so positions are dense and in commit order. */
export const eventStream = pgTable('event_stream', {
  id: smallint('id').primaryKey(),
  position: bigint('position', { mode: 'number' }).notNull(),
  /**
   * The hour since 1970 that goes into each event. It only moves forward, and only to one for which there are partitions
   * (docs/ARCHITECTURE.md, "Partitions").
   */
  hour: integer('hour').notNull().default(0),
});

/** Where each hour of the stream begins. */
export const eventHours = pgTable('event_hours', {
  hour: integer('hour').primaryKey(),
  firstPosition: bigint('first_position', { mode: 'number' }).notNull(),
  beganAt: at('began_at').notNull(),
});

/** What retention took: the last event that was dropped, of each kind of which any was. */
export const droppedEvents = pgTable('dropped_events', {
  kind: varchar('kind', { length: 16 }).primaryKey(),
  throughPosition: bigint('through_position', { mode: 'number' }).notNull(),
});

/**
 * What agents reported. Partitioned by kind, and below that by hour: `events_<kind>`, `events_<kind>_<from>_<until>`, the last
 * hour exclusive.
 */
export const events = pgTable(
  'events',
  {
    position: bigint('position', { mode: 'number' }).notNull(),
    kind: varchar('kind', { length: 16 }).notNull(),
    /** The stream's hour when it was stored; never less than that of an earlier position. */
    hour: integer('hour').notNull(),
    orgId: varchar('org_id', { length: 255 }).notNull(),
    agentUid: id('agent_uid').notNull(),
    agentName: varchar('agent_name', { length: 255 }).notNull(),
    messageId: varchar('message_id', { length: 255 }).notNull(),
    occurredAt: at('occurred_at').notNull(),
    receivedAt: at('received_at').notNull(),
    trusted: boolean('trusted').notNull(),
    sealed: boolean('sealed').notNull(),
    severity: smallint('severity').notNull(),
    replyTo: id('reply_to'),
    /** `json`, not `jsonb`: kept as the agent wrote it, escapes and all. Null where sealed. */
    payload: json('payload'),
  },
  (table) => [
    primaryKey({ columns: [table.position, table.kind, table.hour] }),
    index('idx_events_agent').on(table.agentUid, table.position),
    index('idx_events_reply_to').on(table.replyTo, table.position).where(sql`reply_to is not null`),
  ],
);

/** Ids of recent events, by which one that comes again is told. Partitioned by hour: `recent_event_ids_<from>_<until>`. */
export const recentEventIds = pgTable(
  'recent_event_ids',
  {
    /** The first 16 bytes of SHA-256 over the agent's uid and the message's id. */
    key: id('key').notNull(),
    /** The first hour of the stream's day when it was stored. */
    hour: integer('hour').notNull(),
    /** The first 16 bytes of SHA-256 over what the message says. */
    bodyHash: id('body_hash').notNull(),
  },
  (table) => [primaryKey({ columns: [table.key, table.hour] })],
);

/** What an entry of the audit log says, sealed or not. */
const auditedColumns = {
  /** Null: of no organisation in particular. */
  orgId: varchar('org_id', { length: 255 }),
  at: at('at').notNull().defaultNow(),
  actorKind: varchar('actor_kind', { length: 16 }).notNull(),
  actorId: text('actor_id').notNull(),
  actorLabel: text('actor_label').notNull(),
  address: varchar('address', { length: 64 }),
  requestId: varchar('request_id', { length: 128 }),
  action: varchar('action', { length: 64 }).notNull(),
  subjectType: varchar('subject_type', { length: 32 }).notNull(),
  subjectId: text('subject_id').notNull(),
  subjectName: text('subject_name'),
  /** `OK`, or the code of a refusal. */
  outcome: varchar('outcome', { length: 64 }).notNull().default('OK'),
  /** `json`, not `jsonb`: sealed byte by byte. */
  details: json('details').notNull(),
};

/**
 * What consumers changed and what befell agents, append-only: a trigger refuses every change, and every removal beyond the
 * anchor of its chain. Entries come here with their seal (`src/audit`).
 */
export const auditEntries = pgTable(
  'audit_entries',
  {
    /** Rises as entries are written, not as they are committed: the order of the log is `number`. */
    id: bigserial('id', { mode: 'number' }).primaryKey(),
    ...auditedColumns,
    /** Its place in the chain of its organisation, from 1 on. */
    number: bigint('number', { mode: 'number' }).notNull(),
    /** Hex SHA-256 over the hash before and this entry. */
    hash: varchar('hash', { length: 64 }).notNull(),
  },
  (table) => [
    index('idx_audit_entries_org').on(table.orgId, table.id),
    index('idx_audit_entries_subject').on(table.subjectId, table.id),
    uniqueIndex('audit_entries_chain').on(sql`coalesce(org_id, '')`, table.number),
  ],
);

/**
 * Entries that are not sealed yet: written by the transaction that they tell of, and hence without any index. A trigger refuses
 * every change, and every removal of what is not in `audit_entries`, word for word.
 */
export const auditPending = pgTable('audit_pending', {
  id: bigint('id', { mode: 'number' }).notNull().default(sql`nextval('audit_entries_id_seq')`),
  ...auditedColumns,
});

/** How far each organisation's chain of audit entries has come, and what retention has left off with. */
export const auditChains = pgTable('audit_chains', {
  /** Empty: the entries of no organisation in particular. */
  orgId: varchar('org_id', { length: 255 }).primaryKey(),
  number: bigint('number', { mode: 'number' }).notNull().default(0),
  hash: varchar('hash', { length: 64 }).notNull().default('0'.repeat(64)),
  /** The last entry that was taken away; the first one that is left follows from its hash. */
  anchorNumber: bigint('anchor_number', { mode: 'number' }).notNull().default(0),
  anchorHash: varchar('anchor_hash', { length: 64 }).notNull().default('0'.repeat(64)),
});
