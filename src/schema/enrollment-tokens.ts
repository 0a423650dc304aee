import type { EnrollmentToken } from '../fleet/enrollment-tokens.ts';
import { keysetRange } from '../paging.ts';
import { changing } from './agent-mutations.ts';
import { builder } from './builder.ts';
import { type CountedConnection, countedConnectionOf } from './connections.ts';
import { EnrollmentTokenState } from './enums.ts';
import { checkBounds } from './inputs.ts';
import { AgentRef } from './refs.ts';

const EnrollmentTokenRef = builder.objectRef<EnrollmentToken>('EnrollmentToken').implement({
  description: 'With it one v2 agent enrols, once. The token itself is shown when it is made and kept nowhere.',
  fields: (t) => ({
    id: t.exposeID('id'),
    orgId: t.exposeString('orgId', { description: 'The organisation that it lets an agent into.' }),
    agentId: t.exposeString('agentName', {
      nullable: true,
      description:
        'The one name that it is good for, also to give a known agent a new key. Null: any new name of the organisation.',
    }),
    note: t.exposeString('note', { nullable: true }),
    state: t.expose('state', { type: EnrollmentTokenState }),
    createdAt: t.expose('createdAt', { type: 'DateTime' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime' }),
    usedAt: t.expose('usedAt', { type: 'DateTime', nullable: true }),
    usedBy: t.field({
      type: AgentRef,
      nullable: true,
      description: 'The agent that has used it.',
      resolve: ({ usedBy }, _args, { loaders }) => (usedBy === null ? null : loaders.agents.load(usedBy)),
    }),
    revokedAt: t.expose('revokedAt', { type: 'DateTime', nullable: true }),
  }),
});

const EnrollmentTokenConnection = builder.connectionObject<
  typeof EnrollmentTokenRef,
  CountedConnection<EnrollmentToken>
>({
  type: EnrollmentTokenRef,
  name: 'EnrollmentTokenConnection',
  fields: (t) => ({ totalCount: t.int({ resolve: (connection) => connection.count() }) }),
});

const CreateEnrollmentTokenInput = builder.inputType('CreateEnrollmentTokenInput', {
  fields: (t) => ({
    orgId: t.string({ description: 'The default organisation where absent.' }),
    agentId: t.string({ description: 'The name of the agent that it is for; any new name where absent.' }),
    expiresIn: t.int({ required: true, description: 'Seconds, up to 30 days.' }),
    note: t.string(),
  }),
});

const CreatedEnrollmentToken = builder
  .objectRef<{ readonly secret: string; readonly token: EnrollmentToken }>('CreateEnrollmentTokenPayload')
  .implement({
    fields: (t) => ({
      token: t.exposeString('secret', { description: 'What the agent shows. It cannot be seen again.' }),
      enrollmentToken: t.expose('token', { type: EnrollmentTokenRef }),
    }),
  });

builder.queryField('enrollmentTokens', (t) =>
  t.field({
    type: EnrollmentTokenConnection,
    needs: 'agents:manage',
    description: 'The newest first. Those that ended a month ago are forgotten.',
    args: { ...t.arg.connectionArgs() },
    resolve: (_root, args, { enrollmentTokens, consumer }) => {
      checkBounds(args);
      keysetRange(args, String);
      return countedConnectionOf(
        () => enrollmentTokens.page(consumer, args),
        (token) => enrollmentTokens.cursorOf(token),
        () => enrollmentTokens.count(consumer),
      );
    },
  }),
);

builder.mutationFields((t) => ({
  createEnrollmentToken: t.field({
    type: CreatedEnrollmentToken,
    needs: 'agents:manage',
    description: 'Makes a single-use token with which a v2 agent enrols, or takes a new key.',
    args: { input: t.arg({ type: CreateEnrollmentTokenInput, required: true }) },
    resolve: (_root, { input }, { enrollmentTokens, consumer }) => {
      checkBounds(input);
      const { orgId, agentId, expiresIn, note } = input;
      return enrollmentTokens.create(consumer, {
        orgId: orgId || undefined,
        agentName: agentId || undefined,
        note: note ?? undefined,
        expiresInSeconds: expiresIn,
      });
    },
  }),
  revokeEnrollmentToken: t.field({
    type: EnrollmentTokenRef,
    needs: 'agents:manage',
    description: 'Makes it useless. What has enrolled with it stays.',
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, args, context) => {
      checkBounds(args);
      return changing(context, () => context.enrollmentTokens.revoke(context.consumer, args.id));
    },
  }),
}));
