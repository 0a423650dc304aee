/** Everything that is put on record, and what it is done to. docs/AUDIT.md lists them; names never change. */
export const auditedActions = {
  // Changes by consumers
  'agent.approve': 'agent',
  'agent.revoke': 'agent',
  'agent.reset-key': 'agent',
  'agent.label': 'agent',
  'agent.note': 'agent',
  'agent.channel': 'agent',
  'agent.disconnect': 'agent',
  'message.send': 'message',
  'message.cancel': 'message',
  'broadcast.send': 'broadcast',
  'broadcast.cancel': 'broadcast',
  'enrollment-token.create': 'enrollment-token',
  'enrollment-token.revoke': 'enrollment-token',
  'api-key.create': 'api-key',
  'api-key.revoke': 'api-key',
  'gateway-key.prepare': 'gateway-key',
  'gateway-key.rotate': 'gateway-key',

  // What agents did
  'agent.enrolled': 'agent',
  'agent.moved': 'agent',
  'agent.removed': 'agent',
  'agent.key-pending': 'agent',
  'agent.key-changed': 'agent',
  'agent.key-named': 'agent',
  'agent.superseded': 'agent',
  'agent.refused': 'agent',
  'agent.frame-refused': 'agent',
  'handshake.refused': 'handshake',

  // What gateways did
  'gateway-key.load': 'gateway-key',
  'audit.trim': 'audit',
} as const;

export type AuditedAction = keyof typeof auditedActions;

export const auditedActionNames = Object.keys(auditedActions);

export type SubjectType = (typeof auditedActions)[AuditedAction];
