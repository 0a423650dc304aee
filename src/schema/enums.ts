import { builder } from './builder.ts';

export const EnrollmentState = builder.enumType('EnrollmentState', {
  description: 'Whether an agent may connect.',
  values: { PENDING: { value: 'pending' }, APPROVED: { value: 'approved' }, REVOKED: { value: 'revoked' } } as const,
});

export const AgentProtocol = builder.enumType('AgentProtocol', {
  description: 'The wire protocol of a live connection. V1 is protected by TLS alone.',
  values: { V1: { value: 'v1' }, V2: { value: 'v2' } } as const,
});

export const EnrollmentTokenState = builder.enumType('EnrollmentTokenState', {
  values: {
    USABLE: { value: 'usable' },
    USED: { value: 'used' },
    EXPIRED: { value: 'expired' },
    REVOKED: { value: 'revoked' },
  } as const,
});

export const ApiKeyState = builder.enumType('ApiKeyState', {
  values: { USABLE: { value: 'usable' }, EXPIRED: { value: 'expired' }, REVOKED: { value: 'revoked' } } as const,
});

export const AgentDialect = builder.enumType('AgentDialect', {
  description: 'Which of the two dialects of V1 an agent was last heard to speak. A handoff agent takes no commands.',
  values: { HANDOFF: { value: 'handoff' }, ENVELOPED: { value: 'enveloped' } } as const,
});

export const EventKind = builder.enumType('EventKind', {
  values: {
    POLICIES: { value: 'policies' },
    ANOMALIES: { value: 'anomalies' },
    THREATS: { value: 'threats' },
    PROCESSES: { value: 'processes' },
    DEPENDENCIES: { value: 'dependencies' },
    TESTS: { value: 'tests' },
    ROLLBACKS: { value: 'rollbacks' },
    HEARTBEAT: { value: 'heartbeat' },
    STATUS: { value: 'status' },
    LOGS: { value: 'logs' },
  } as const,
});

export const Severity = builder.enumType('Severity', {
  values: {
    UNKNOWN: { value: 'unknown' },
    INFO: { value: 'info' },
    LOW: { value: 'low' },
    MEDIUM: { value: 'medium' },
    HIGH: { value: 'high' },
    CRITICAL: { value: 'critical' },
  } as const,
});

export const CommandChannel = builder.enumType('CommandChannel', {
  values: {
    POLICIES: { value: 'policies' },
    INVESTIGATIONS: { value: 'investigations' },
    THREATS: { value: 'threats' },
    PROCESSES: { value: 'processes' },
    TESTS: { value: 'tests' },
    ROLLBACKS: { value: 'rollbacks' },
  } as const,
});

export const MessageType = builder.enumType('MessageType', {
  values: { REQUEST: { value: 'request' }, RESPONSE: { value: 'response' }, EVENT: { value: 'event' } } as const,
});

export const MessagePriority = builder.enumType('MessagePriority', {
  values: {
    LOW: { value: 'low' },
    NORMAL: { value: 'normal' },
    HIGH: { value: 'high' },
    URGENT: { value: 'urgent' },
  } as const,
});

export const MessageStatus = builder.enumType('MessageStatus', {
  description: `QUEUED accepted and durable; SENT written to the agent's socket; DELIVERED the agent has it (acknowledged, or read,
for agents that cannot acknowledge); FAILED every attempt used up or refused by the agent; EXPIRED its time ran out
first; CANCELLED by a consumer. FAILED, EXPIRED, CANCELLED and DELIVERED are final.`,
  values: {
    QUEUED: { value: 'pending' },
    SENT: { value: 'sent' },
    DELIVERED: { value: 'delivered' },
    FAILED: { value: 'failed' },
    EXPIRED: { value: 'expired' },
    CANCELLED: { value: 'cancelled' },
  } as const,
});

export const BroadcastState = builder.enumType('BroadcastState', {
  description:
    'CANCELLED, ABORTED and FINISHED are final. What is CANCELLING or ABORTING still has messages to be taken back.',
  values: {
    RUNNING: { value: 'running' },
    CANCELLING: { value: 'cancelling' },
    ABORTING: { value: 'aborting' },
    CANCELLED: { value: 'cancelled' },
    ABORTED: { value: 'aborted' },
    FINISHED: { value: 'finished' },
  } as const,
});
