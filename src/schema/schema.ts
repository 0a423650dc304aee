import type { GraphQLSchema } from 'graphql';
import { builder } from './builder.ts';
import './scalars.ts';
import './agents.ts';
import './agent-mutations.ts';
import './enrollment-tokens.ts';
import './api-keys.ts';
import './audit-entries.ts';
import './events.ts';
import './event-subscriptions.ts';
import './presence.ts';
import './messages.ts';
import './message-mutations.ts';
import './message-updates.ts';
import './gateway.ts';
import './node.ts';

let schema: GraphQLSchema | null = null;

/** The consumers' schema, built once. Unsorted: the order of enum values such as severities means something. */
export function buildSchema(): GraphQLSchema {
  schema ??= builder.toSchema({ sortSchema: false });
  return schema;
}
