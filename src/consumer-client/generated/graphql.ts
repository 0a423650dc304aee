/* eslint-disable */
/** Internal type. DO NOT USE DIRECTLY. */
type Exact<T extends { [key: string]: unknown }> = { [K in keyof T]: T[K] };
/** Internal type. DO NOT USE DIRECTLY. */
export type Incremental<T> = T | { [P in keyof T]?: P extends ' $fragmentName' | '__typename' ? T[P] : never };
import type { DocumentTypeDecoration } from '@graphql-typed-document-node/core';
/** Which of the two dialects of V1 an agent was last heard to speak. A handoff agent takes no commands. */
export type AgentDialect =
  | 'ENVELOPED'
  | 'HANDOFF';

export type AgentFilter = {
  readonly agentIds?: ReadonlyArray<string> | null | undefined;
  readonly connected?: boolean | null | undefined;
  readonly enrollment?: EnrollmentState | null | undefined;
  /** Every one of these labels. */
  readonly labels?: ReadonlyArray<string> | null | undefined;
  readonly orgId?: string | null | undefined;
  readonly protocol?: AgentProtocol | null | undefined;
  /** Part of the name or host name, without regard to case. */
  readonly search?: string | null | undefined;
};

/** The wire protocol of a live connection. V1 is protected by TLS alone. */
export type AgentProtocol =
  | 'V1'
  | 'V2';

export type BroadcastInput = {
  /** Takes back what is left once so many percent of the results (10 at least) are FAILED or EXPIRED; never where absent. */
  readonly abortAtFailurePercent?: number | null | undefined;
  readonly channel: CommandChannel;
  /** All approved agents of the caller's organisation where absent. */
  readonly filter?: AgentFilter | null | undefined;
  readonly idempotencyKey?: string | null | undefined;
  readonly maxRetries?: number | null | undefined;
  readonly payload: unknown;
  readonly priority?: MessagePriority | null | undefined;
  /** Messages that may go out in each second; all at once where absent. */
  readonly ratePerSecond?: number | null | undefined;
  readonly ttl?: number | null | undefined;
  readonly type?: MessageType | null | undefined;
};

/** CANCELLED, ABORTED and FINISHED are final. What is CANCELLING or ABORTING still has messages to be taken back. */
export type BroadcastState =
  | 'ABORTED'
  | 'ABORTING'
  | 'CANCELLED'
  | 'CANCELLING'
  | 'FINISHED'
  | 'RUNNING';

export type CommandChannel =
  | 'INVESTIGATIONS'
  | 'POLICIES'
  | 'PROCESSES'
  | 'ROLLBACKS'
  | 'TESTS'
  | 'THREATS';

/** Whether an agent may connect. */
export type EnrollmentState =
  | 'APPROVED'
  | 'PENDING'
  | 'REVOKED';

export type EventKind =
  | 'ANOMALIES'
  | 'DEPENDENCIES'
  | 'HEARTBEAT'
  | 'LOGS'
  | 'POLICIES'
  | 'PROCESSES'
  | 'ROLLBACKS'
  | 'STATUS'
  | 'TESTS'
  | 'THREATS';

export type MessagePriority =
  | 'HIGH'
  | 'LOW'
  | 'NORMAL'
  | 'URGENT';

/**
 * QUEUED accepted and durable; SENT written to the agent's socket; DELIVERED the agent has it (acknowledged, or read,
 * for agents that cannot acknowledge); FAILED every attempt used up or refused by the agent; EXPIRED its time ran out
 * first; CANCELLED by a consumer. FAILED, EXPIRED, CANCELLED and DELIVERED are final.
 */
export type MessageStatus =
  | 'CANCELLED'
  | 'DELIVERED'
  | 'EXPIRED'
  | 'FAILED'
  | 'QUEUED'
  | 'SENT';

export type MessageType =
  | 'EVENT'
  | 'REQUEST'
  | 'RESPONSE';

export type SendMessageInput = {
  readonly agentId: string;
  readonly channel: CommandChannel;
  /** The same key again, while its message is kept, gives back the same message and sends nothing; with another body it is an error. */
  readonly idempotencyKey?: string | null | undefined;
  /** The gateway's MESSAGE_RETRY_ATTEMPTS where absent. */
  readonly maxRetries?: number | null | undefined;
  readonly payload: unknown;
  readonly priority?: MessagePriority | null | undefined;
  /** Seconds; the gateway's MESSAGE_TTL where absent. */
  readonly ttl?: number | null | undefined;
  readonly type?: MessageType | null | undefined;
};

export type Severity =
  | 'CRITICAL'
  | 'HIGH'
  | 'INFO'
  | 'LOW'
  | 'MEDIUM'
  | 'UNKNOWN';

export type AgentFactsFragment = { readonly id: string, readonly agentId: string, readonly uid: string, readonly orgId: string, readonly hostname: string | null, readonly labels: ReadonlyArray<string>, readonly enrollment: EnrollmentState, readonly dialect: AgentDialect | null, readonly connected: boolean, readonly lastSeenAt: string | null, readonly session: { readonly protocol: AgentProtocol, readonly gatewayInstance: string, readonly connectedAt: string, readonly expiresAt: string } | null };

export type GatewayQueryVariables = Exact<{ [key: string]: never; }>;


export type GatewayQuery = { readonly gateway: { readonly version: string, readonly instance: string, readonly instances: ReadonlyArray<string>, readonly connectedAgents: number, readonly agentsAwaitingApproval: number, readonly keys: { readonly current: string, readonly next: string | null } } };

export type AgentQueryVariables = Exact<{
  agentId: string;
}>;


export type AgentQuery = { readonly agent: { readonly channels: ReadonlyArray<string>, readonly id: string, readonly agentId: string, readonly uid: string, readonly orgId: string, readonly hostname: string | null, readonly labels: ReadonlyArray<string>, readonly enrollment: EnrollmentState, readonly dialect: AgentDialect | null, readonly connected: boolean, readonly lastSeenAt: string | null, readonly session: { readonly protocol: AgentProtocol, readonly gatewayInstance: string, readonly connectedAt: string, readonly expiresAt: string } | null } | null };

export type AgentsQueryVariables = Exact<{
  filter?: AgentFilter | null | undefined;
  first?: number | null | undefined;
  after?: string | null | undefined;
}>;


export type AgentsQuery = { readonly agents: { readonly totalCount: number, readonly nodes: ReadonlyArray<{ readonly id: string, readonly agentId: string, readonly uid: string, readonly orgId: string, readonly hostname: string | null, readonly labels: ReadonlyArray<string>, readonly enrollment: EnrollmentState, readonly dialect: AgentDialect | null, readonly connected: boolean, readonly lastSeenAt: string | null, readonly session: { readonly protocol: AgentProtocol, readonly gatewayInstance: string, readonly connectedAt: string, readonly expiresAt: string } | null }>, readonly pageInfo: { readonly hasNextPage: boolean, readonly endCursor: string | null } } };

export type ApproveAgentMutationVariables = Exact<{
  agentId: string;
  keyFingerprint?: string | null | undefined;
}>;


export type ApproveAgentMutation = { readonly approveAgent: { readonly id: string, readonly agentId: string, readonly uid: string, readonly orgId: string, readonly hostname: string | null, readonly labels: ReadonlyArray<string>, readonly enrollment: EnrollmentState, readonly dialect: AgentDialect | null, readonly connected: boolean, readonly lastSeenAt: string | null, readonly session: { readonly protocol: AgentProtocol, readonly gatewayInstance: string, readonly connectedAt: string, readonly expiresAt: string } | null } };

export type ApproveAgentsMutationVariables = Exact<{
  filter: AgentFilter;
}>;


export type ApproveAgentsMutation = { readonly approveAgents: number };

export type SetAgentLabelsMutationVariables = Exact<{
  agentId: string;
  add?: ReadonlyArray<string> | string | null | undefined;
  remove?: ReadonlyArray<string> | string | null | undefined;
}>;


export type SetAgentLabelsMutation = { readonly setAgentLabels: { readonly id: string, readonly agentId: string, readonly uid: string, readonly orgId: string, readonly hostname: string | null, readonly labels: ReadonlyArray<string>, readonly enrollment: EnrollmentState, readonly dialect: AgentDialect | null, readonly connected: boolean, readonly lastSeenAt: string | null, readonly session: { readonly protocol: AgentProtocol, readonly gatewayInstance: string, readonly connectedAt: string, readonly expiresAt: string } | null } };

export type PresenceSubscriptionVariables = Exact<{
  agentId?: string | null | undefined;
  labels?: ReadonlyArray<string> | string | null | undefined;
}>;


export type PresenceSubscription = { readonly presence: { readonly connected: boolean, readonly at: string, readonly reason: string | null, readonly agent: { readonly id: string, readonly agentId: string, readonly uid: string, readonly orgId: string, readonly hostname: string | null, readonly labels: ReadonlyArray<string>, readonly enrollment: EnrollmentState, readonly dialect: AgentDialect | null, readonly connected: boolean, readonly lastSeenAt: string | null, readonly session: { readonly protocol: AgentProtocol, readonly gatewayInstance: string, readonly connectedAt: string, readonly expiresAt: string } | null } } };

type EventFacts_AnomalyEvent_Fragment = { readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown };

type EventFacts_GenericEvent_Fragment = { readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown };

type EventFacts_ProcessEvent_Fragment = { readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown };

type EventFacts_ThreatEvent_Fragment = { readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown };

export type EventFactsFragment =
  | EventFacts_AnomalyEvent_Fragment
  | EventFacts_GenericEvent_Fragment
  | EventFacts_ProcessEvent_Fragment
  | EventFacts_ThreatEvent_Fragment
;

export type EventsQueryVariables = Exact<{
  kinds?: ReadonlyArray<EventKind> | EventKind | null | undefined;
  agentId?: string | null | undefined;
  minSeverity?: Severity | null | undefined;
  includeUntrusted?: boolean | null | undefined;
  first?: number | null | undefined;
  after?: string | null | undefined;
  last?: number | null | undefined;
  before?: string | null | undefined;
}>;


export type EventsQuery = { readonly events: { readonly nodes: ReadonlyArray<
      | { readonly __typename: 'AnomalyEvent', readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown }
      | { readonly __typename: 'GenericEvent', readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown }
      | { readonly __typename: 'ProcessEvent', readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown }
      | { readonly __typename: 'ThreatEvent', readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown }
    >, readonly pageInfo: { readonly hasNextPage: boolean, readonly hasPreviousPage: boolean, readonly startCursor: string | null, readonly endCursor: string | null } } };

export type AnomaliesSubscriptionVariables = Exact<{
  agentId?: string | null | undefined;
  labels?: ReadonlyArray<string> | string | null | undefined;
  minSeverity?: Severity | null | undefined;
  includeUntrusted?: boolean | null | undefined;
  after?: string | null | undefined;
}>;


export type AnomaliesSubscription = { readonly anomalies: { readonly type: string | null, readonly severity: Severity, readonly message: string | null, readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown } };

export type ThreatsSubscriptionVariables = Exact<{
  agentId?: string | null | undefined;
  labels?: ReadonlyArray<string> | string | null | undefined;
  minSeverity?: Severity | null | undefined;
  includeUntrusted?: boolean | null | undefined;
  after?: string | null | undefined;
}>;


export type ThreatsSubscription = { readonly threats: { readonly type: string | null, readonly severity: Severity, readonly description: string | null, readonly source: string | null, readonly response: string | null, readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown, readonly indicators: ReadonlyArray<{ readonly type: string | null, readonly value: string | null, readonly confidence: number | null, readonly severity: Severity, readonly source: string | null }> } };

export type ProcessesSubscriptionVariables = Exact<{
  agentId?: string | null | undefined;
  labels?: ReadonlyArray<string> | string | null | undefined;
  includeUntrusted?: boolean | null | undefined;
  after?: string | null | undefined;
}>;


export type ProcessesSubscription = { readonly processes: { readonly action: string | null, readonly pid: number | null, readonly name: string | null, readonly path: string | null, readonly user: string | null, readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown } };

export type EventStreamSubscriptionVariables = Exact<{
  kinds?: ReadonlyArray<EventKind> | EventKind | null | undefined;
  agentId?: string | null | undefined;
  labels?: ReadonlyArray<string> | string | null | undefined;
  minSeverity?: Severity | null | undefined;
  includeUntrusted?: boolean | null | undefined;
  after?: string | null | undefined;
}>;


export type EventStreamSubscription = { readonly events:
    | { readonly __typename: 'AnomalyEvent', readonly type: string | null, readonly severity: Severity, readonly message: string | null, readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown }
    | { readonly __typename: 'GenericEvent', readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown }
    | { readonly __typename: 'ProcessEvent', readonly action: string | null, readonly name: string | null, readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown }
    | { readonly __typename: 'StreamGap', readonly from: string | null, readonly to: string, readonly reason: string }
    | { readonly __typename: 'ThreatEvent', readonly type: string | null, readonly severity: Severity, readonly description: string | null, readonly id: string, readonly cursor: string, readonly kind: EventKind, readonly messageId: string, readonly agentId: string, readonly channel: string, readonly occurredAt: string, readonly receivedAt: string, readonly trusted: boolean, readonly sealed: boolean, readonly payload: unknown }
   };

export type EventCursorQueryVariables = Exact<{ [key: string]: never; }>;


export type EventCursorQuery = { readonly eventCursor: string };

export type MessageFactsFragment = { readonly id: string, readonly agentId: string, readonly channel: string, readonly type: MessageType, readonly priority: MessagePriority, readonly status: MessageStatus, readonly payload: unknown, readonly attempts: number, readonly maxRetries: number, readonly createdAt: string, readonly sentAt: string | null, readonly deliveredAt: string | null, readonly expiresAt: string, readonly failure: string | null };

export type BroadcastFactsFragment = { readonly id: string, readonly channel: string, readonly createdAt: string, readonly state: BroadcastState, readonly abortedReason: string | null, readonly progress: { readonly targets: number, readonly queued: number, readonly sent: number, readonly delivered: number, readonly failed: number, readonly expired: number, readonly cancelled: number } };

export type MessageQueryVariables = Exact<{
  id: string;
}>;


export type MessageQuery = { readonly message: { readonly id: string, readonly agentId: string, readonly channel: string, readonly type: MessageType, readonly priority: MessagePriority, readonly status: MessageStatus, readonly payload: unknown, readonly attempts: number, readonly maxRetries: number, readonly createdAt: string, readonly sentAt: string | null, readonly deliveredAt: string | null, readonly expiresAt: string, readonly failure: string | null } | null };

export type BroadcastQueryVariables = Exact<{
  id: string;
}>;


export type BroadcastQuery = { readonly broadcast: { readonly id: string, readonly channel: string, readonly createdAt: string, readonly state: BroadcastState, readonly abortedReason: string | null, readonly progress: { readonly targets: number, readonly queued: number, readonly sent: number, readonly delivered: number, readonly failed: number, readonly expired: number, readonly cancelled: number } } | null };

export type SendMessageMutationVariables = Exact<{
  input: SendMessageInput;
}>;


export type SendMessageMutation = { readonly sendMessage: { readonly message: { readonly id: string, readonly agentId: string, readonly channel: string, readonly type: MessageType, readonly priority: MessagePriority, readonly status: MessageStatus, readonly payload: unknown, readonly attempts: number, readonly maxRetries: number, readonly createdAt: string, readonly sentAt: string | null, readonly deliveredAt: string | null, readonly expiresAt: string, readonly failure: string | null } } };

export type SendBroadcastMutationVariables = Exact<{
  input: BroadcastInput;
}>;


export type SendBroadcastMutation = { readonly broadcast: { readonly broadcast: { readonly id: string, readonly channel: string, readonly createdAt: string, readonly state: BroadcastState, readonly abortedReason: string | null, readonly progress: { readonly targets: number, readonly queued: number, readonly sent: number, readonly delivered: number, readonly failed: number, readonly expired: number, readonly cancelled: number } } } };

export type CancelMessageMutationVariables = Exact<{
  id: string;
}>;


export type CancelMessageMutation = { readonly cancelMessage: { readonly id: string, readonly agentId: string, readonly channel: string, readonly type: MessageType, readonly priority: MessagePriority, readonly status: MessageStatus, readonly payload: unknown, readonly attempts: number, readonly maxRetries: number, readonly createdAt: string, readonly sentAt: string | null, readonly deliveredAt: string | null, readonly expiresAt: string, readonly failure: string | null } };

export type CancelBroadcastMutationVariables = Exact<{
  id: string;
}>;


export type CancelBroadcastMutation = { readonly cancelBroadcast: { readonly id: string, readonly channel: string, readonly createdAt: string, readonly state: BroadcastState, readonly abortedReason: string | null, readonly progress: { readonly targets: number, readonly queued: number, readonly sent: number, readonly delivered: number, readonly failed: number, readonly expired: number, readonly cancelled: number } } };

export type MessageUpdatesSubscriptionVariables = Exact<{
  messageId?: string | null | undefined;
  broadcastId?: string | null | undefined;
  agentId?: string | null | undefined;
}>;


export type MessageUpdatesSubscription = { readonly messageUpdates: { readonly id: string, readonly agentId: string, readonly channel: string, readonly type: MessageType, readonly priority: MessagePriority, readonly status: MessageStatus, readonly payload: unknown, readonly attempts: number, readonly maxRetries: number, readonly createdAt: string, readonly sentAt: string | null, readonly deliveredAt: string | null, readonly expiresAt: string, readonly failure: string | null } };

export class TypedDocumentString<TResult, TVariables>
  extends String
  implements DocumentTypeDecoration<TResult, TVariables>
{
  __apiType?: NonNullable<DocumentTypeDecoration<TResult, TVariables>['__apiType']>;
  private value: string;
  public __meta__?: Record<string, any> | undefined;

  constructor(value: string, __meta__?: Record<string, any> | undefined) {
    super(value);
    this.value = value;
    this.__meta__ = __meta__;
  }

  override toString(): string & DocumentTypeDecoration<TResult, TVariables> {
    return this.value;
  }
}
export const AgentFactsFragmentDoc = new TypedDocumentString(`
    fragment AgentFacts on Agent {
  id
  agentId
  uid
  orgId
  hostname
  labels
  enrollment
  dialect
  connected
  lastSeenAt
  session {
    protocol
    gatewayInstance
    connectedAt
    expiresAt
  }
}
    `, {"fragmentName":"AgentFacts"}) as unknown as TypedDocumentString<AgentFactsFragment, unknown>;
export const EventFactsFragmentDoc = new TypedDocumentString(`
    fragment EventFacts on Event {
  id
  cursor
  kind
  messageId
  agentId
  channel
  occurredAt
  receivedAt
  trusted
  sealed
  payload
}
    `, {"fragmentName":"EventFacts"}) as unknown as TypedDocumentString<EventFactsFragment, unknown>;
export const MessageFactsFragmentDoc = new TypedDocumentString(`
    fragment MessageFacts on Message {
  id
  agentId
  channel
  type
  priority
  status
  payload
  attempts
  maxRetries
  createdAt
  sentAt
  deliveredAt
  expiresAt
  failure
}
    `, {"fragmentName":"MessageFacts"}) as unknown as TypedDocumentString<MessageFactsFragment, unknown>;
export const BroadcastFactsFragmentDoc = new TypedDocumentString(`
    fragment BroadcastFacts on Broadcast {
  id
  channel
  createdAt
  state
  abortedReason
  progress {
    targets
    queued
    sent
    delivered
    failed
    expired
    cancelled
  }
}
    `, {"fragmentName":"BroadcastFacts"}) as unknown as TypedDocumentString<BroadcastFactsFragment, unknown>;
export const GatewayDocument = new TypedDocumentString(`
    query Gateway {
  gateway {
    version
    instance
    instances
    connectedAgents
    agentsAwaitingApproval
    keys {
      current
      next
    }
  }
}
    `, {"hash":"sha256:8a7b044f5d393bbd2e71dfdb90a4f83a7540daaff31701e208ac3824ffc5f2ff"}) as unknown as TypedDocumentString<GatewayQuery, GatewayQueryVariables>;
export const AgentDocument = new TypedDocumentString(`
    query Agent($agentId: ID!) {
  agent(agentId: $agentId) {
    ...AgentFacts
    channels
  }
}
    fragment AgentFacts on Agent {
  id
  agentId
  uid
  orgId
  hostname
  labels
  enrollment
  dialect
  connected
  lastSeenAt
  session {
    protocol
    gatewayInstance
    connectedAt
    expiresAt
  }
}`, {"hash":"sha256:042018324f7334bf186d37ffc4750cb06ce1564f2ee05675f44284edcbc8766c"}) as unknown as TypedDocumentString<AgentQuery, AgentQueryVariables>;
export const AgentsDocument = new TypedDocumentString(`
    query Agents($filter: AgentFilter, $first: Int, $after: String) {
  agents(filter: $filter, first: $first, after: $after) {
    totalCount
    nodes {
      ...AgentFacts
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
    fragment AgentFacts on Agent {
  id
  agentId
  uid
  orgId
  hostname
  labels
  enrollment
  dialect
  connected
  lastSeenAt
  session {
    protocol
    gatewayInstance
    connectedAt
    expiresAt
  }
}`, {"hash":"sha256:e8ce310a4d22d2c80c2546cc91c56aa2a0512107c2ffedd41599b9a8aec12f5c"}) as unknown as TypedDocumentString<AgentsQuery, AgentsQueryVariables>;
export const ApproveAgentDocument = new TypedDocumentString(`
    mutation ApproveAgent($agentId: ID!, $keyFingerprint: String) {
  approveAgent(agentId: $agentId, keyFingerprint: $keyFingerprint) {
    ...AgentFacts
  }
}
    fragment AgentFacts on Agent {
  id
  agentId
  uid
  orgId
  hostname
  labels
  enrollment
  dialect
  connected
  lastSeenAt
  session {
    protocol
    gatewayInstance
    connectedAt
    expiresAt
  }
}`, {"hash":"sha256:007d3efdc657664cef4c646b0e8973f2906ddeee52b64aac5d30c3b0f188cbf7"}) as unknown as TypedDocumentString<ApproveAgentMutation, ApproveAgentMutationVariables>;
export const ApproveAgentsDocument = new TypedDocumentString(`
    mutation ApproveAgents($filter: AgentFilter!) {
  approveAgents(filter: $filter)
}
    `, {"hash":"sha256:f00b863daccba258b3d63b87525e047f8db36acfd42d9ac3fdc78e1f20f1bdfe"}) as unknown as TypedDocumentString<ApproveAgentsMutation, ApproveAgentsMutationVariables>;
export const SetAgentLabelsDocument = new TypedDocumentString(`
    mutation SetAgentLabels($agentId: ID!, $add: [String!], $remove: [String!]) {
  setAgentLabels(agentId: $agentId, add: $add, remove: $remove) {
    ...AgentFacts
  }
}
    fragment AgentFacts on Agent {
  id
  agentId
  uid
  orgId
  hostname
  labels
  enrollment
  dialect
  connected
  lastSeenAt
  session {
    protocol
    gatewayInstance
    connectedAt
    expiresAt
  }
}`, {"hash":"sha256:4a87f31fb71d91511e7d5bd1c0560939f35af702c047f13cf2a49bf073c9707d"}) as unknown as TypedDocumentString<SetAgentLabelsMutation, SetAgentLabelsMutationVariables>;
export const PresenceDocument = new TypedDocumentString(`
    subscription Presence($agentId: ID, $labels: [String!]) {
  presence(agentId: $agentId, labels: $labels) {
    agent {
      ...AgentFacts
    }
    connected
    at
    reason
  }
}
    fragment AgentFacts on Agent {
  id
  agentId
  uid
  orgId
  hostname
  labels
  enrollment
  dialect
  connected
  lastSeenAt
  session {
    protocol
    gatewayInstance
    connectedAt
    expiresAt
  }
}`, {"hash":"sha256:6d7b31001cfdde7f3cb7196f584afc9d9453886e3cd84cad2208258ead11b77c"}) as unknown as TypedDocumentString<PresenceSubscription, PresenceSubscriptionVariables>;
export const EventsDocument = new TypedDocumentString(`
    query Events($kinds: [EventKind!], $agentId: ID, $minSeverity: Severity, $includeUntrusted: Boolean, $first: Int, $after: String, $last: Int, $before: String) {
  events(
    kinds: $kinds
    agentId: $agentId
    minSeverity: $minSeverity
    includeUntrusted: $includeUntrusted
    first: $first
    after: $after
    last: $last
    before: $before
  ) {
    nodes {
      __typename
      ...EventFacts
    }
    pageInfo {
      hasNextPage
      hasPreviousPage
      startCursor
      endCursor
    }
  }
}
    fragment EventFacts on Event {
  id
  cursor
  kind
  messageId
  agentId
  channel
  occurredAt
  receivedAt
  trusted
  sealed
  payload
}`, {"hash":"sha256:2afd28c633f4cbacfb263c2537af7ce9e01dfaf308580ee8004f04ddfbec26eb"}) as unknown as TypedDocumentString<EventsQuery, EventsQueryVariables>;
export const AnomaliesDocument = new TypedDocumentString(`
    subscription Anomalies($agentId: ID, $labels: [String!], $minSeverity: Severity, $includeUntrusted: Boolean, $after: String) {
  anomalies(
    agentId: $agentId
    labels: $labels
    minSeverity: $minSeverity
    includeUntrusted: $includeUntrusted
    after: $after
  ) {
    ...EventFacts
    type
    severity
    message
  }
}
    fragment EventFacts on Event {
  id
  cursor
  kind
  messageId
  agentId
  channel
  occurredAt
  receivedAt
  trusted
  sealed
  payload
}`, {"hash":"sha256:01ece48fc7d14c2d2a5c2efa3a41e9fd640ec9dece80bb2e192e421fb031ea23"}) as unknown as TypedDocumentString<AnomaliesSubscription, AnomaliesSubscriptionVariables>;
export const ThreatsDocument = new TypedDocumentString(`
    subscription Threats($agentId: ID, $labels: [String!], $minSeverity: Severity, $includeUntrusted: Boolean, $after: String) {
  threats(
    agentId: $agentId
    labels: $labels
    minSeverity: $minSeverity
    includeUntrusted: $includeUntrusted
    after: $after
  ) {
    ...EventFacts
    type
    severity
    description
    source
    response
    indicators {
      type
      value
      confidence
      severity
      source
    }
  }
}
    fragment EventFacts on Event {
  id
  cursor
  kind
  messageId
  agentId
  channel
  occurredAt
  receivedAt
  trusted
  sealed
  payload
}`, {"hash":"sha256:b8ba8b515fe5bc1ec0eaf90125c5de9593fdfec19877c4713019225b6d869fde"}) as unknown as TypedDocumentString<ThreatsSubscription, ThreatsSubscriptionVariables>;
export const ProcessesDocument = new TypedDocumentString(`
    subscription Processes($agentId: ID, $labels: [String!], $includeUntrusted: Boolean, $after: String) {
  processes(
    agentId: $agentId
    labels: $labels
    includeUntrusted: $includeUntrusted
    after: $after
  ) {
    ...EventFacts
    action
    pid
    name
    path
    user
  }
}
    fragment EventFacts on Event {
  id
  cursor
  kind
  messageId
  agentId
  channel
  occurredAt
  receivedAt
  trusted
  sealed
  payload
}`, {"hash":"sha256:1fab2910c959988df4b3c28066d7da64fd5c04145bc895d3df9d81f9be7f77be"}) as unknown as TypedDocumentString<ProcessesSubscription, ProcessesSubscriptionVariables>;
export const EventStreamDocument = new TypedDocumentString(`
    subscription EventStream($kinds: [EventKind!], $agentId: ID, $labels: [String!], $minSeverity: Severity, $includeUntrusted: Boolean, $after: String) {
  events(
    kinds: $kinds
    agentId: $agentId
    labels: $labels
    minSeverity: $minSeverity
    includeUntrusted: $includeUntrusted
    after: $after
  ) {
    __typename
    ... on Event {
      ...EventFacts
    }
    ... on AnomalyEvent {
      type
      severity
      message
    }
    ... on ThreatEvent {
      type
      severity
      description
    }
    ... on ProcessEvent {
      action
      name
    }
    ... on StreamGap {
      from
      to
      reason
    }
  }
}
    fragment EventFacts on Event {
  id
  cursor
  kind
  messageId
  agentId
  channel
  occurredAt
  receivedAt
  trusted
  sealed
  payload
}`, {"hash":"sha256:bb6a9b9b007d8b35c63409e0ec8de88d4233ad560741faed3a2e173fc2e56c13"}) as unknown as TypedDocumentString<EventStreamSubscription, EventStreamSubscriptionVariables>;
export const EventCursorDocument = new TypedDocumentString(`
    query EventCursor {
  eventCursor
}
    `, {"hash":"sha256:f0ca365305d74a838d44ad64fbf710a90a58e231473e9a5870abcaac0ff39e3b"}) as unknown as TypedDocumentString<EventCursorQuery, EventCursorQueryVariables>;
export const MessageDocument = new TypedDocumentString(`
    query Message($id: ID!) {
  message(id: $id) {
    ...MessageFacts
  }
}
    fragment MessageFacts on Message {
  id
  agentId
  channel
  type
  priority
  status
  payload
  attempts
  maxRetries
  createdAt
  sentAt
  deliveredAt
  expiresAt
  failure
}`, {"hash":"sha256:cf86f238f1c2c743a0d8d3b0c2c6cdfbbde1a7ed7f42c9099e4798c4a73f5b5f"}) as unknown as TypedDocumentString<MessageQuery, MessageQueryVariables>;
export const BroadcastDocument = new TypedDocumentString(`
    query Broadcast($id: ID!) {
  broadcast(id: $id) {
    ...BroadcastFacts
  }
}
    fragment BroadcastFacts on Broadcast {
  id
  channel
  createdAt
  state
  abortedReason
  progress {
    targets
    queued
    sent
    delivered
    failed
    expired
    cancelled
  }
}`, {"hash":"sha256:05437c898e1e0ef1af71f907ed27d4d420c7fd9af84e404c538bf3bdca540929"}) as unknown as TypedDocumentString<BroadcastQuery, BroadcastQueryVariables>;
export const SendMessageDocument = new TypedDocumentString(`
    mutation SendMessage($input: SendMessageInput!) {
  sendMessage(input: $input) {
    message {
      ...MessageFacts
    }
  }
}
    fragment MessageFacts on Message {
  id
  agentId
  channel
  type
  priority
  status
  payload
  attempts
  maxRetries
  createdAt
  sentAt
  deliveredAt
  expiresAt
  failure
}`, {"hash":"sha256:20cc922bf9ce10314ddb18ef182ed047a22904961ec404081c60267d9faacc73"}) as unknown as TypedDocumentString<SendMessageMutation, SendMessageMutationVariables>;
export const SendBroadcastDocument = new TypedDocumentString(`
    mutation SendBroadcast($input: BroadcastInput!) {
  broadcast(input: $input) {
    broadcast {
      ...BroadcastFacts
    }
  }
}
    fragment BroadcastFacts on Broadcast {
  id
  channel
  createdAt
  state
  abortedReason
  progress {
    targets
    queued
    sent
    delivered
    failed
    expired
    cancelled
  }
}`, {"hash":"sha256:e0a4355e835f56eb076c9c56eca873904877419abc506231eeac1776e5be586d"}) as unknown as TypedDocumentString<SendBroadcastMutation, SendBroadcastMutationVariables>;
export const CancelMessageDocument = new TypedDocumentString(`
    mutation CancelMessage($id: ID!) {
  cancelMessage(id: $id) {
    ...MessageFacts
  }
}
    fragment MessageFacts on Message {
  id
  agentId
  channel
  type
  priority
  status
  payload
  attempts
  maxRetries
  createdAt
  sentAt
  deliveredAt
  expiresAt
  failure
}`, {"hash":"sha256:09ba6e955ea95f81911c0e99817469332afd1c8af5e45cccac3319cb4e192a91"}) as unknown as TypedDocumentString<CancelMessageMutation, CancelMessageMutationVariables>;
export const CancelBroadcastDocument = new TypedDocumentString(`
    mutation CancelBroadcast($id: ID!) {
  cancelBroadcast(id: $id) {
    ...BroadcastFacts
  }
}
    fragment BroadcastFacts on Broadcast {
  id
  channel
  createdAt
  state
  abortedReason
  progress {
    targets
    queued
    sent
    delivered
    failed
    expired
    cancelled
  }
}`, {"hash":"sha256:c56cca5b2f11be06bd76d19e46bf524d0dc42a5cc3449bb3620f63ccd62f3208"}) as unknown as TypedDocumentString<CancelBroadcastMutation, CancelBroadcastMutationVariables>;
export const MessageUpdatesDocument = new TypedDocumentString(`
    subscription MessageUpdates($messageId: ID, $broadcastId: ID, $agentId: ID) {
  messageUpdates(
    messageId: $messageId
    broadcastId: $broadcastId
    agentId: $agentId
  ) {
    ...MessageFacts
  }
}
    fragment MessageFacts on Message {
  id
  agentId
  channel
  type
  priority
  status
  payload
  attempts
  maxRetries
  createdAt
  sentAt
  deliveredAt
  expiresAt
  failure
}`, {"hash":"sha256:ad90bd9ee539969fbf0b1cd6aee28b5e7bf1cda3977a2892a8a592fe064e4d29"}) as unknown as TypedDocumentString<MessageUpdatesSubscription, MessageUpdatesSubscriptionVariables>;