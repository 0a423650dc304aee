import type { ApiKeys } from '../access/api-keys.ts';
import type { Consumer } from '../access/consumer.ts';
import type { AuditLog } from '../audit/entry.ts';
import type { Events } from '../events/events.ts';
import type { EnrollmentTokens } from '../fleet/enrollment-tokens.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { GatewayInfo } from '../gateway-info.ts';
import type { Messages } from '../messages/messages.ts';
import { createLoaders, type Loaders } from './loaders.ts';
import type { StreamPlace } from './streams.ts';

/** What GraphQL stands on. */
export interface ConsumerServices {
  readonly apiKeys: ApiKeys;
  readonly auditLog: AuditLog;
  readonly fleet: Fleet;
  readonly enrollmentTokens: EnrollmentTokens;
  readonly events: Events;
  readonly messages: Messages;
  readonly gateway: GatewayInfo;
}

/** What every resolver of one operation has: who asks, and what can be asked. */
export interface ConsumerContext extends ConsumerServices {
  readonly consumer: Consumer;
  readonly loaders: Loaders;
  /** Where the transport can resume a stream; it is the transport that adds it. */
  readonly place?: StreamPlace | undefined;
}

/** The context of one operation; never share it between two, as it remembers what it loaded. */
export function createConsumerContext(consumer: Consumer, services: ConsumerServices): ConsumerContext {
  const { apiKeys, auditLog, fleet, enrollmentTokens, events, messages, gateway } = services;
  const parts = { apiKeys, auditLog, fleet, enrollmentTokens, events, messages, gateway };
  return { consumer, ...parts, loaders: createLoaders(consumer, services) };
}
