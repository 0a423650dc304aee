import type { Need } from '../../src/access/consumer.ts';

/**
 * Who may do what: every field of every type of GraphQL by what it needs beyond what leads to it, and every route of REST. A
 * field or a route that is not here fails the test: whoever adds one says here, and in docs/ACCESS.md, whom it is for.
 */

/** Nothing beyond what leads to it. */
type FieldNeed = Need | 'nothing';

export const fieldTable: Readonly<Record<string, Partial<Record<FieldNeed, string>>>> = {
  Query: {
    'agents:read': 'agent agents',
    'agents:manage': 'enrollmentTokens',
    'events:read': 'events eventCursor',
    'messages:read': 'message broadcast',
    'audit:read': 'auditEntries',
    admin: 'apiKeys',
    authenticated: 'gateway node',
  },
  Mutation: {
    'agents:manage':
      'approveAgent approveAgents revokeAgent resetAgentKey setAgentLabels setAgentNote setAgentChannel disconnectAgent createEnrollmentToken revokeEnrollmentToken',
    'messages:send': 'sendMessage broadcast cancelBroadcast cancelMessage',
    admin: 'createApiKey revokeApiKey',
  },
  Subscription: {
    'agents:read': 'presence',
    'events:read': 'anomalies threats processes events',
    'messages:read': 'messageUpdates',
  },
  Agent: {
    nothing:
      'id agentId uid orgId hostname version platform network capabilities labels note enrollment keyFingerprint pendingKeyFingerprint pendingKeyProtocol pendingKeys v2Since dialect connected lastSeenAt lastV1At lastV2At createdAt session channels',
    'events:read': 'events',
    'messages:read': 'messages',
  },
  AgentConnection: { nothing: 'pageInfo edges totalCount', 'agents:read': 'nodes' },
  AgentEdge: { nothing: 'cursor', 'agents:read': 'node' },
  AgentSession: { nothing: 'protocol gatewayInstance remoteAddress connectedAt expiresAt' },
  PendingKey: { nothing: 'fingerprint protocol since' },
  PresenceEvent: { nothing: 'connected at reason', 'agents:read': 'agent' },
  AnomalyEvent: {
    nothing:
      'id cursor kind messageId agentId channel occurredAt receivedAt trusted sealed payload type severity message',
    'agents:read': 'agent',
  },
  ThreatEvent: {
    nothing:
      'id cursor kind messageId agentId channel occurredAt receivedAt trusted sealed payload type severity description source indicators response',
    'agents:read': 'agent',
  },
  ThreatIndicator: { nothing: 'type value confidence severity source' },
  ProcessEvent: {
    nothing:
      'id cursor kind messageId agentId channel occurredAt receivedAt trusted sealed payload action pid name path user',
    'agents:read': 'agent',
  },
  GenericEvent: {
    nothing: 'id cursor kind messageId agentId channel occurredAt receivedAt trusted sealed payload',
    'agents:read': 'agent',
  },
  EventConnection: { nothing: 'pageInfo edges', 'events:read': 'nodes' },
  EventEdge: { nothing: 'cursor', 'events:read': 'node' },
  StreamGap: { nothing: 'from to reason' },
  Message: {
    nothing:
      'id agentId channel type priority status payload attempts maxRetries createdAt sentAt deliveredAt expiresAt failure history',
    'agents:read': 'agent',
    'events:read': 'replies',
    'messages:read': 'broadcast',
  },
  MessageConnection: { nothing: 'pageInfo edges totalCount', 'messages:read': 'nodes' },
  MessageEdge: { nothing: 'cursor', 'messages:read': 'node' },
  MessageTransition: { nothing: 'status at attempts failure' },
  SendMessagePayload: { 'messages:send': 'message' },
  Broadcast: {
    nothing: 'id channel createdAt state abortedReason ratePerSecond abortAtFailurePercent progress',
    'messages:read': 'messages',
  },
  BroadcastProgress: { nothing: 'targets queued sent delivered failed expired cancelled' },
  BroadcastPayload: { 'messages:send': 'broadcast' },
  EnrollmentToken: {
    nothing: 'id orgId agentId note state createdAt expiresAt usedAt revokedAt',
    'agents:read': 'usedBy',
  },
  EnrollmentTokenConnection: { nothing: 'pageInfo edges nodes totalCount' },
  EnrollmentTokenEdge: { nothing: 'cursor node' },
  CreateEnrollmentTokenPayload: { nothing: 'token enrollmentToken' },
  ApiKey: {
    nothing: 'id prefix name orgId scopes state createdAt createdBy expiresAt lastUsedAt revokedAt',
  },
  ApiKeyConnection: { nothing: 'pageInfo edges nodes totalCount' },
  ApiKeyEdge: { nothing: 'cursor node' },
  CreateApiKeyPayload: { nothing: 'key apiKey' },
  AuditEntry: {
    nothing: 'id orgId at action outcome details number hash',
    'audit:read': 'actor subject',
  },
  AuditActor: { nothing: 'kind id label address requestId' },
  AuditSubject: { nothing: 'type id name' },
  AuditEntryConnection: { nothing: 'pageInfo edges', 'audit:read': 'nodes' },
  AuditEntryEdge: { nothing: 'cursor', 'audit:read': 'node' },
  Gateway: {
    nothing: 'version instance instances keys',
    'agents:read': 'connectedAgents connectedAgentsByProtocol agentsAwaitingApproval',
    operator: 'statistics',
  },
  GatewayKeys: { nothing: 'current next' },
  GatewayStatistics: { nothing: 'since messages deliveryAttempts meanDeliveryMs events refusedFrames' },
  MessageStatusCount: { nothing: 'status count' },
  EventKindCount: { nothing: 'kind count' },
  RefusedFrameCount: { nothing: 'reason count' },
  PageInfo: { nothing: 'hasNextPage hasPreviousPage startCursor endCursor' },
};

/** What the documents and paths below name, of one organisation. */
export interface Objects {
  /** Stands in every text that belongs to the organisation. */
  readonly orgId: string;
  readonly agentId: string;
  readonly agentUid: string;
  /** Another agent, to be revoked. */
  readonly spareName: string;
  readonly messageId: string;
  readonly broadcastId: string;
  readonly eventId: string;
  readonly tokenId: string;
  readonly keyId: string;
}

/**
 * A document that reaches each field that needs something: all of `Query`, `Mutation` and `Subscription`, and what leads from one
 * part to another. `leads` is what the way to it needs, where it is not the field's own need.
 */
export const documentTable: Readonly<Record<string, { readonly by: (of: Objects) => string; readonly leads?: Need }>> =
  {
    'Query.agent': { by: ({ agentUid }) => `{ agent(agentId: "${agentUid}") { agentId orgId note labels } }` },
    'Query.agents': {
      by: ({ orgId }) => `{ agents(filter: {orgId: "${orgId}"}) { totalCount nodes { agentId orgId } } }`,
    },
    'Query.enrollmentTokens': { by: () => '{ enrollmentTokens { totalCount nodes { orgId note } } }' },
    'Query.events': { by: ({ agentUid }) => `{ events(agentId: "${agentUid}") { nodes { agentId payload } } }` },
    'Query.eventCursor': { by: () => '{ eventCursor }' },
    'Query.message': { by: ({ messageId }) => `{ message(id: "${messageId}") { agentId payload } }` },
    'Query.broadcast': { by: ({ broadcastId }) => `{ broadcast(id: "${broadcastId}") { id progress { targets } } }` },
    'Query.apiKeys': { by: () => '{ apiKeys { totalCount nodes { orgId name } } }' },
    'Query.auditEntries': { by: () => '{ auditEntries { nodes { orgId action outcome } } }' },
    'Query.gateway': { by: () => '{ gateway { version } }' },
    'Query.node': {
      by: ({ agentUid }) => `{ node(id: "${Buffer.from(`None:${agentUid}`).toString('base64url')}") { id } }`,
    },
    'Mutation.approveAgent': { by: ({ agentUid }) => `mutation { approveAgent(agentId: "${agentUid}") { agentId } }` },
    'Mutation.approveAgents': { by: ({ orgId }) => `mutation { approveAgents(filter: {orgId: "${orgId}"}) }` },
    'Mutation.resetAgentKey': {
      by: ({ agentUid }) => `mutation { resetAgentKey(agentId: "${agentUid}") { agentId } }`,
    },
    'Mutation.setAgentLabels': {
      by: ({ agentUid }) => `mutation { setAgentLabels(agentId: "${agentUid}", add: ["seen"]) { agentId labels } }`,
    },
    'Mutation.setAgentNote': {
      by: ({ agentUid }) => `mutation { setAgentNote(agentId: "${agentUid}", note: "seen") { agentId } }`,
    },
    'Mutation.setAgentChannel': {
      by: ({ agentUid }) =>
        `mutation { setAgentChannel(agentId: "${agentUid}", channel: "agent.logs", active: false) { agentId } }`,
    },
    'Mutation.disconnectAgent': {
      by: ({ agentUid }) => `mutation { disconnectAgent(agentId: "${agentUid}") { agentId } }`,
    },
    'Mutation.createEnrollmentToken': {
      by: ({ orgId }) =>
        `mutation { createEnrollmentToken(input: {orgId: "${orgId}", expiresIn: 60}) { enrollmentToken { orgId } } }`,
    },
    'Mutation.revokeEnrollmentToken': {
      by: ({ tokenId }) => `mutation { revokeEnrollmentToken(id: "${tokenId}") { orgId } }`,
    },
    'Mutation.sendMessage': {
      by: ({ agentUid }) =>
        `mutation { sendMessage(input: {agentId: "${agentUid}", channel: TESTS, payload: 1}) { message { agentId } } }`,
    },
    'Mutation.broadcast': {
      by: ({ orgId }) =>
        `mutation { broadcast(input: {channel: TESTS, payload: 1, filter: {orgId: "${orgId}"}}) { broadcast { progress { targets } } } }`,
    },
    'Mutation.cancelBroadcast': {
      by: ({ broadcastId }) => `mutation { cancelBroadcast(id: "${broadcastId}") { state } }`,
    },
    'Mutation.cancelMessage': { by: ({ messageId }) => `mutation { cancelMessage(id: "${messageId}") { agentId } }` },
    'Mutation.createApiKey': {
      by: ({ orgId }) =>
        `mutation { createApiKey(input: {name: "n", scopes: ["agents:read"], orgId: "${orgId}"}) { apiKey { orgId } } }`,
    },
    'Mutation.revokeApiKey': { by: ({ keyId }) => `mutation { revokeApiKey(id: "${keyId}") { orgId } }` },
    'Mutation.revokeAgent': { by: ({ spareName }) => `mutation { revokeAgent(agentId: "${spareName}") { agentId } }` },
    'Subscription.presence': {
      by: ({ agentUid }) => `subscription { presence(agentId: "${agentUid}") { connected } }`,
    },
    'Subscription.anomalies': { by: ({ agentUid }) => `subscription { anomalies(agentId: "${agentUid}") { cursor } }` },
    'Subscription.threats': { by: ({ agentUid }) => `subscription { threats(agentId: "${agentUid}") { cursor } }` },
    'Subscription.processes': { by: ({ agentUid }) => `subscription { processes(agentId: "${agentUid}") { cursor } }` },
    'Subscription.events': { by: ({ agentUid }) => `subscription { events(agentId: "${agentUid}") { __typename } }` },
    'Subscription.messageUpdates': {
      by: ({ messageId }) => `subscription { messageUpdates(messageId: "${messageId}") { status } }`,
    },
    'Agent.events': {
      leads: 'agents:read',
      by: ({ agentUid }) => `{ agent(agentId: "${agentUid}") { events { nodes { payload } } } }`,
    },
    'Agent.messages': {
      leads: 'agents:read',
      by: ({ agentUid }) => `{ agent(agentId: "${agentUid}") { messages { totalCount nodes { payload } } } }`,
    },
    'GenericEvent.agent': {
      leads: 'events:read',
      by: ({ agentUid }) => `{ events(agentId: "${agentUid}", last: 1) { nodes { agent { note } } } }`,
    },
    'Message.agent': {
      leads: 'messages:read',
      by: ({ messageId }) => `{ message(id: "${messageId}") { agent { note } } }`,
    },
    'Message.replies': {
      leads: 'messages:read',
      by: ({ messageId }) => `{ message(id: "${messageId}") { replies { payload } } }`,
    },
    'Broadcast.messages': {
      leads: 'messages:send',
      by: ({ agentId, orgId }) =>
        `mutation { broadcast(input: {channel: TESTS, payload: 1, filter: {agentIds: ["${agentId}"], orgId: "${orgId}"}}) { broadcast { messages { totalCount nodes { agentId } } } } }`,
    },
    'Message.broadcast': {
      leads: 'messages:send',
      by: ({ agentUid }) =>
        `mutation { sendMessage(input: {agentId: "${agentUid}", channel: TESTS, payload: 1}) { message { broadcast { id } } } }`,
    },
    'AuditEntry.actor': { by: () => '{ auditEntries { nodes { orgId actor { id label } } } }' },
    'AuditEntry.subject': { by: () => '{ auditEntries { nodes { orgId subject { id name } } } }' },
    'EnrollmentToken.usedBy': {
      leads: 'agents:manage',
      by: () => '{ enrollmentTokens { nodes { usedBy { agentId } } } }',
    },
    'Gateway.connectedAgents': { leads: 'authenticated', by: () => '{ gateway { connectedAgents } }' },
    'Gateway.connectedAgentsByProtocol': {
      leads: 'authenticated',
      by: () => '{ gateway { connectedAgentsByProtocol(protocol: V1) } }',
    },
    'Gateway.agentsAwaitingApproval': { leads: 'authenticated', by: () => '{ gateway { agentsAwaitingApproval } }' },
    'Gateway.statistics': { leads: 'authenticated', by: () => '{ gateway { statistics { since } } }' },
  };

/** What `node` needs by the type that the id names. */
export const nodeTable: Readonly<Record<string, { readonly need: Need; readonly id: (of: Objects) => string }>> = {
  Agent: { need: 'agents:read', id: ({ agentUid }) => nodeId('Agent', agentUid) },
  Message: { need: 'messages:read', id: ({ messageId }) => nodeId('Message', messageId) },
  Broadcast: { need: 'messages:read', id: ({ broadcastId }) => nodeId('Broadcast', broadcastId) },
  GenericEvent: { need: 'events:read', id: ({ eventId }) => eventId },
  'an agent by its UUID': { need: 'agents:read', id: ({ agentUid }) => agentUid },
  'a message by its UUID': { need: 'messages:read', id: ({ messageId }) => messageId },
  'a broadcast by its UUID': { need: 'messages:read', id: ({ broadcastId }) => broadcastId },
};

function nodeId(type: string, id: string): string {
  return Buffer.from(`${type}:${id}`).toString('base64url');
}

/** Every route of REST; `open` to anyone. */
export const routeTable: Readonly<
  Record<string, { readonly need: Need | 'open'; readonly path?: (of: Objects) => string; readonly body?: object }>
> = {
  'get /healthz': { need: 'open' },
  'get /readyz': { need: 'open' },
  'get /openapi.json': { need: 'open' },
  'post /agents/register/init': { need: 'open' },
  'post /agents/register/complete': { need: 'open' },
  'get /metrics': { need: 'operator' },
  'get /agents': { need: 'agents:read' },
  'get /agents/{uid}': { need: 'agents:read', path: ({ agentUid }) => `/agents/${agentUid}` },
  'put /agents/{uid}/labels': {
    need: 'agents:manage',
    path: ({ agentUid }) => `/agents/${agentUid}/labels`,
    body: { add: ['seen'] },
  },
  'put /agents/{uid}/note': {
    need: 'agents:manage',
    path: ({ agentUid }) => `/agents/${agentUid}/note`,
    body: { note: 'seen' },
  },
  'get /api/v1/agents/{id}/status': {
    need: 'agents:read',
    path: ({ agentUid }) => `/api/v1/agents/${agentUid}/status`,
  },
  'post /api/v1/agents/{id}/send': {
    need: 'messages:send',
    path: ({ agentUid }) => `/api/v1/agents/${agentUid}/send`,
    body: { channel: 'tests', message: 1 },
  },
  'post /api/v1/agents/broadcast': { need: 'messages:send', body: { channel: 'tests', message: 1 } },
  'get /api/v1/messages/{message_id}': {
    need: 'messages:read',
    path: ({ messageId }) => `/api/v1/messages/${messageId}`,
  },
};
