import { AgentFilterInput } from './agents.ts';
import { builder } from './builder.ts';
import type { ConsumerContext } from './context.ts';
import { agentFilterOf, checkBounds } from './inputs.ts';
import { agentRefOf } from './node-ids.ts';
import { AgentRef } from './refs.ts';

/** Makes a change, and has what was loaded before it forgotten. */
export async function changing<Result>(context: ConsumerContext, change: () => Promise<Result>): Promise<Result> {
  try {
    return await change();
  } finally {
    context.loaders.forget();
  }
}

builder.mutationFields((t) => ({
  approveAgent: t.field({
    type: AgentRef,
    needs: 'agents:manage',
    description: 'Trusts the agent, or its pending key, from now on; what waited for it flows.',
    args: {
      agentId: t.arg.id({ required: true }),
      keyFingerprint: t.arg.string({
        description: 'The key that the approval is meant for; with another one waiting it is AGENT_KEY_NOT_PENDING.',
      }),
    },
    resolve: (_root, args, context) => {
      checkBounds(args);
      const keyFingerprint = args.keyFingerprint ?? undefined;
      return changing(context, () => context.fleet.approve(context.consumer, agentRefOf(args.agentId), keyFingerprint));
    },
  }),
  approveAgents: t.int({
    needs: 'agents:manage',
    description: 'The same for all that match; answers how many.',
    args: { filter: t.arg({ type: AgentFilterInput, required: true }) },
    resolve: (_root, args, context) => {
      const filter = agentFilterOf(args.filter);
      return changing(context, () => context.fleet.approveAll(context.consumer, filter));
    },
  }),
  revokeAgent: t.field({
    type: AgentRef,
    needs: 'agents:manage',
    description: 'Closes its connection and refuses it from now on.',
    args: { agentId: t.arg.id({ required: true }), reason: t.arg.string() },
    resolve: (_root, args, context) => {
      checkBounds(args);
      return changing(context, () =>
        context.fleet.revoke(context.consumer, agentRefOf(args.agentId), args.reason ?? null),
      );
    },
  }),
  resetAgentKey: t.field({
    type: AgentRef,
    needs: 'agents:manage',
    description: 'Lets the agent come back with a new key once, on v1 too.',
    args: { agentId: t.arg.id({ required: true }) },
    resolve: (_root, args, context) => {
      checkBounds(args);
      return changing(context, () => context.fleet.resetKey(context.consumer, agentRefOf(args.agentId)));
    },
  }),
  setAgentLabels: t.field({
    type: AgentRef,
    needs: 'agents:manage',
    args: { agentId: t.arg.id({ required: true }), add: t.arg.stringList(), remove: t.arg.stringList() },
    resolve: (_root, args, context) => {
      checkBounds(args);
      return changing(context, () =>
        context.fleet.setLabels(context.consumer, agentRefOf(args.agentId), args.add ?? [], args.remove ?? []),
      );
    },
  }),
  setAgentNote: t.field({
    type: AgentRef,
    needs: 'agents:manage',
    args: { agentId: t.arg.id({ required: true }), note: t.arg.string({ required: true }) },
    resolve: (_root, args, context) => {
      checkBounds(args);
      return changing(context, () => context.fleet.setNote(context.consumer, agentRefOf(args.agentId), args.note));
    },
  }),
  setAgentChannel: t.field({
    type: AgentRef,
    needs: 'agents:manage',
    description: 'Switches one of its channels on or off. What a channel that is off carries is refused and counted.',
    args: {
      agentId: t.arg.id({ required: true }),
      channel: t.arg.string({ required: true, description: 'Long or short form: `agent.logs`, `backend.policies`.' }),
      active: t.arg.boolean({ required: true }),
    },
    resolve: (_root, args, context) => {
      checkBounds(args);
      return changing(context, () =>
        context.fleet.setChannelActive(context.consumer, agentRefOf(args.agentId), args.channel, args.active),
      );
    },
  }),
  disconnectAgent: t.field({
    type: AgentRef,
    needs: 'agents:manage',
    args: { agentId: t.arg.id({ required: true }) },
    resolve: (_root, args, context) => {
      checkBounds(args);
      return changing(context, () => context.fleet.disconnect(context.consumer, agentRefOf(args.agentId)));
    },
  }),
}));
