import type { Agent, PresenceChange } from '../fleet/agent.ts';
import { builder } from './builder.ts';
import { agentUidOf } from './events.ts';
import { checkBounds } from './inputs.ts';
import { AgentRef } from './refs.ts';
import { streamOf } from './streams.ts';

interface PresenceEvent extends PresenceChange {
  readonly agent: Agent;
}

const PresenceEventRef = builder.objectRef<PresenceEvent>('PresenceEvent').implement({
  fields: (t) => ({
    agent: t.expose('agent', { type: AgentRef }),
    connected: t.exposeBoolean('connected'),
    at: t.expose('at', { type: 'DateTime' }),
    reason: t.exposeString('reason', { nullable: true }),
  }),
});

builder.subscriptionField('presence', (t) =>
  t.field({
    type: PresenceEventRef,
    needs: 'agents:read',
    args: { agentId: t.arg.id(), labels: t.arg.stringList() },
    subscribe: async (_root, args, context) => {
      checkBounds(args);
      const { fleet, loaders } = context;
      const labels = args.labels ?? [];
      const only = args.agentId == null ? null : await agentUidOf(args.agentId, context);
      return streamOf(
        context,
        (signal) => fleet.presence(signal),
        async (change): Promise<PresenceEvent | null> => {
          if (only !== null && change.agentUid !== only) return null;
          // Agents outside the scope are not found.
          const agent = await loaders.agents.load(change.agentUid);
          return agent && labels.every((label) => agent.labels.includes(label)) ? { ...change, agent } : null;
        },
      );
    },
    resolve: (event) => event,
  }),
);
