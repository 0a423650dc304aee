import type { GatewayInfo } from '../gateway-info.ts';
import { builder } from './builder.ts';
import { AgentProtocol } from './enums.ts';

const Gateway = builder.objectRef<GatewayInfo>('Gateway').implement({
  fields: (t) => ({
    version: t.exposeString('version'),
    instance: t.exposeString('instance'),
    instances: t.field({ type: ['String'], resolve: (_gateway, _args, { fleet }) => fleet.instances() }),
    connectedAgents: t.int({ resolve: (_gateway, _args, { fleet, scope }) => fleet.countConnected(scope) }),
    connectedAgentsByProtocol: t.int({
      args: { protocol: t.arg({ type: AgentProtocol, required: true }) },
      resolve: (_gateway, { protocol }, { fleet, scope }) => fleet.countConnected(scope, protocol),
    }),
    agentsAwaitingApproval: t.int({
      resolve: (_gateway, _args, { fleet, scope }) => fleet.countAwaitingApproval(scope),
    }),
  }),
});

builder.queryField('gateway', (t) => t.field({ type: Gateway, resolve: (_root, _args, { gateway }) => gateway }));
