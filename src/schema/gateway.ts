import type { GatewayInfo, GatewayStatistics } from '../gateway-info.ts';
import { builder } from './builder.ts';
import { AgentProtocol, EventKind, MessageStatus } from './enums.ts';

type StatusCount = GatewayStatistics['messages'][number];
type KindCount = GatewayStatistics['events'][number];
type ReasonCount = GatewayStatistics['refusedFrames'][number];

const MessageStatusCount = builder.objectRef<StatusCount>('MessageStatusCount').implement({
  fields: (t) => ({
    status: t.field({ type: MessageStatus, resolve: ({ status }) => status }),
    count: t.exposeFloat('count'),
  }),
});

const EventKindCount = builder.objectRef<KindCount>('EventKindCount').implement({
  fields: (t) => ({
    kind: t.field({ type: EventKind, resolve: ({ kind }) => kind }),
    count: t.exposeFloat('count'),
  }),
});

const RefusedFrameCount = builder.objectRef<ReasonCount>('RefusedFrameCount').implement({
  fields: (t) => ({
    reason: t.exposeString('reason', { description: 'A code of the error catalogue.' }),
    count: t.exposeFloat('count'),
  }),
});

const Statistics = builder.objectRef<GatewayStatistics>('GatewayStatistics').implement({
  description: 'What this instance has counted since its start.',
  fields: (t) => ({
    since: t.field({ type: 'DateTime', resolve: ({ since }) => since }),
    messages: t.field({
      type: [MessageStatusCount],
      description: 'How often a message came into each status.',
      resolve: ({ messages }) => [...messages],
    }),
    deliveryAttempts: t.exposeFloat('deliveryAttempts', {
      description: 'Frames written for the messages that were delivered, retries among them.',
    }),
    meanDeliveryMs: t.exposeFloat('meanDeliveryMs', {
      nullable: true,
      description: 'From acceptance to delivery; null before the first.',
    }),
    events: t.field({ type: [EventKindCount], resolve: ({ events }) => [...events] }),
    refusedFrames: t.field({
      type: [RefusedFrameCount],
      description: 'Frames of agents that were dropped, by reason.',
      resolve: ({ refusedFrames }) => [...refusedFrames],
    }),
  }),
});

const GatewayKeysRef = builder.objectRef<ReturnType<GatewayInfo['keys']>>('GatewayKeys').implement({
  description: 'Fingerprints, lower-case hex SHA-256 of the raw Ed25519 public key: what v2 agents must have pinned.',
  fields: (t) => ({
    current: t.string({ resolve: ({ current }) => current.fingerprint }),
    next: t.string({
      nullable: true,
      description: 'The key that the next rotation puts in its place; null where none is prepared.',
      resolve: ({ next }) => next?.fingerprint ?? null,
    }),
  }),
});

const Gateway = builder.objectRef<GatewayInfo>('Gateway').implement({
  fields: (t) => ({
    version: t.exposeString('version'),
    instance: t.exposeString('instance'),
    instances: t.field({ type: ['String'], resolve: (_gateway, _args, { fleet }) => fleet.instances() }),
    connectedAgents: t.int({
      needs: 'agents:read',
      resolve: (_gateway, _args, { fleet, consumer }) => fleet.countConnected(consumer),
    }),
    connectedAgentsByProtocol: t.int({
      needs: 'agents:read',
      args: { protocol: t.arg({ type: AgentProtocol, required: true }) },
      resolve: (_gateway, { protocol }, { fleet, consumer }) => fleet.countConnected(consumer, protocol),
    }),
    agentsAwaitingApproval: t.int({
      needs: 'agents:read',
      resolve: (_gateway, _args, { fleet, consumer }) => fleet.countAwaitingApproval(consumer),
    }),
    keys: t.field({
      type: GatewayKeysRef,
      description: "This instance's own keys.",
      resolve: (gateway) => gateway.keys(),
    }),
    statistics: t.field({
      type: Statistics,
      needs: 'operator',
      description: 'Over all organisations: for their administrators.',
      resolve: (gateway) => gateway.statistics(),
    }),
  }),
});

builder.queryField('gateway', (t) =>
  t.field({ type: Gateway, needs: 'authenticated', resolve: (_root, _args, { gateway }) => gateway }),
);
