import type { AgentSession, PendingKey } from '../fleet/agent.ts';
import { keysetRange } from '../paging.ts';
import { builder } from './builder.ts';
import {
  AgentConnection,
  connectionOf,
  countedConnectionOf,
  EventConnection,
  MessageConnection,
} from './connections.ts';
import { AgentDialect, AgentProtocol, EnrollmentState, EventKind, MessageStatus, Severity } from './enums.ts';
import { agentFilterOf, checkBounds } from './inputs.ts';
import { agentRefOf } from './node-ids.ts';
import { AgentRef, NodeRef } from './refs.ts';

const AgentSessionRef = builder.objectRef<AgentSession>('AgentSession').implement({
  fields: (t) => ({
    protocol: t.expose('protocol', { type: AgentProtocol }),
    gatewayInstance: t.exposeString('instance'),
    remoteAddress: t.exposeString('remoteAddress', { nullable: true }),
    connectedAt: t.expose('connectedAt', { type: 'DateTime' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime' }),
  }),
});

const PendingKeyRef = builder.objectRef<PendingKey>('PendingKey').implement({
  fields: (t) => ({
    fingerprint: t.exposeString('fingerprint', {
      description: 'Lower-case hex SHA-256 of the raw Ed25519 public key.',
    }),
    protocol: t.expose('protocol', { type: AgentProtocol }),
    since: t.expose('since', { type: 'DateTime' }),
  }),
});

AgentRef.implement({
  needs: 'agents:read',
  interfaces: [NodeRef],
  fields: (t) => ({
    agentId: t.exposeString('name', {
      description: 'The name that the agent gives itself, a host name as a rule. Unique within its organisation.',
    }),
    uid: t.exposeID('uid', {
      description: 'Given at registration; stays the same for the same organisation, name and key.',
    }),
    orgId: t.exposeString('orgId'),
    hostname: t.exposeString('hostname', { nullable: true }),
    version: t.exposeString('version', { nullable: true }),
    platform: t.expose('platform', { type: 'JSON', nullable: true }),
    network: t.expose('network', { type: 'JSON', nullable: true }),
    capabilities: t.expose('capabilities', { type: 'JSON', nullable: true }),
    labels: t.field({ type: ['String'], resolve: (agent) => agent.labels }),
    note: t.exposeString('note', { nullable: true }),
    enrollment: t.expose('enrollment', { type: EnrollmentState }),
    keyFingerprint: t.exposeString('keyFingerprint', {
      description: 'Lower-case hex SHA-256 of the raw Ed25519 public key.',
    }),
    pendingKeyFingerprint: t.string({
      nullable: true,
      description: 'A new key under the same name that waits for `approveAgent`; its link is in quarantine.',
      resolve: (agent) => agent.pendingKeys[0]?.fingerprint ?? null,
    }),
    pendingKeyProtocol: t.field({
      type: AgentProtocol,
      nullable: true,
      description: 'The protocol of that key.',
      resolve: (agent) => agent.pendingKeys[0]?.protocol ?? null,
    }),
    pendingKeys: t.field({
      type: [PendingKeyRef],
      description: 'Every key that waits under the name, the newest first: the newest one of each protocol.',
      resolve: (agent) => [...agent.pendingKeys],
    }),
    v2Since: t.expose('v2Since', {
      type: 'DateTime',
      nullable: true,
      description: 'Since when its key is trusted on v2, and v1 refused; `resetAgentKey` makes it null.',
    }),
    dialect: t.expose('dialect', { type: AgentDialect, nullable: true, description: 'Null until it was heard.' }),
    connected: t.boolean({ resolve: (agent) => agent.session !== null }),
    lastSeenAt: t.expose('lastSeenAt', { type: 'DateTime', nullable: true }),
    lastV1At: t.expose('lastV1At', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was last heard on v1, by a link that owned it.',
    }),
    lastV2At: t.expose('lastV2At', { type: 'DateTime', nullable: true, description: 'The same on v2.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime' }),
    session: t.expose('session', {
      type: AgentSessionRef,
      nullable: true,
      description: 'The live connection, null while disconnected.',
    }),
    channels: t.field({
      type: ['String'],
      description: "Names of the agent's active channels, long form.",
      resolve: (agent, _args, { loaders }) => loaders.activeChannels.load(agent.uid),
    }),
    events: t.field({
      type: EventConnection,
      args: {
        kinds: t.arg({ type: [EventKind] }),
        minSeverity: t.arg({ type: Severity }),
        includeUntrusted: t.arg.boolean({ defaultValue: false }),
        ...t.arg.connectionArgs(),
      },
      resolve: (agent, args, { events, loaders }) => {
        checkBounds(args);
        const range = keysetRange(args, events.positionOf);
        const filter = {
          kinds: args.kinds ?? undefined,
          minSeverity: args.minSeverity ?? undefined,
          includeUntrusted: args.includeUntrusted ?? false,
        };
        return connectionOf(
          () => loaders.eventsOfAgent.load({ agentUid: agent.uid, filter, range }),
          (event) => events.cursorOf(event),
        );
      },
    }),
    messages: t.field({
      type: MessageConnection,
      args: { status: t.arg({ type: [MessageStatus] }), ...t.arg.connectionArgs() },
      resolve: (agent, args, { messages, loaders }) => {
        checkBounds(args);
        const range = keysetRange(args, messages.keyOf);
        const statuses = args.status ?? undefined;
        return countedConnectionOf(
          () => loaders.messagesOfAgent.load({ agentUid: agent.uid, statuses, range }),
          (message) => messages.cursorOf(message),
          () => loaders.messageCountOfAgent.load({ agentUid: agent.uid, statuses }),
        );
      },
    }),
  }),
});

export const AgentFilterInput = builder.inputType('AgentFilter', {
  fields: (t) => ({
    connected: t.boolean(),
    enrollment: t.field({ type: EnrollmentState }),
    protocol: t.field({ type: AgentProtocol }),
    orgId: t.string(),
    labels: t.stringList({ description: 'Every one of these labels.' }),
    agentIds: t.idList(),
    search: t.string({ description: 'Part of the name or host name, without regard to case.' }),
  }),
});

builder.queryFields((t) => ({
  agent: t.field({
    type: AgentRef,
    needs: 'agents:read',
    nullable: true,
    description: 'By uid or by name.',
    args: { agentId: t.arg.id({ required: true }) },
    resolve: (_root, args, { fleet, consumer }) => {
      checkBounds(args);
      return fleet.find(consumer, agentRefOf(args.agentId));
    },
  }),
  agents: t.field({
    type: AgentConnection,
    needs: 'agents:read',
    args: { filter: t.arg({ type: AgentFilterInput }), ...t.arg.connectionArgs() },
    resolve: (_root, args, { fleet, consumer }) => {
      checkBounds(args);
      keysetRange(args, String);
      const filter = agentFilterOf(args.filter);
      return countedConnectionOf(
        () => fleet.page(consumer, filter, args),
        (agent) => fleet.cursorOf(agent),
        () => fleet.count(consumer, filter),
      );
    },
  }),
}));
