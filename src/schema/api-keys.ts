import { type ApiKey, maxKeyLifeSeconds } from '../access/api-keys.ts';
import { permissions } from '../access/consumer.ts';
import { keysetRange } from '../paging.ts';
import { builder } from './builder.ts';
import { type CountedConnection, countedConnectionOf } from './connections.ts';
import { ApiKeyState } from './enums.ts';
import { checkBounds } from './inputs.ts';

const ApiKeyRef = builder.objectRef<ApiKey>('ApiKey').implement({
  description: 'With it a consumer shows who it is. The key itself is shown when it is made and kept nowhere.',
  fields: (t) => ({
    id: t.exposeID('id'),
    prefix: t.exposeString('prefix', { description: 'With which the key begins; no secret.' }),
    name: t.exposeString('name'),
    orgId: t.exposeString('orgId', {
      nullable: true,
      description: 'The organisation whose objects it reaches; null: all organisations.',
    }),
    scopes: t.field({ type: ['String'], resolve: (key) => [...key.permissions] }),
    state: t.expose('state', { type: ApiKeyState }),
    createdAt: t.expose('createdAt', { type: 'DateTime' }),
    createdBy: t.exposeString('createdBy', { description: 'Whoever made it, as names of keys and tokens tell.' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', nullable: true }),
    lastUsedAt: t.expose('lastUsedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Written down every ten seconds; null: never.',
    }),
    revokedAt: t.expose('revokedAt', { type: 'DateTime', nullable: true }),
  }),
});

const ApiKeyConnection = builder.connectionObject<typeof ApiKeyRef, CountedConnection<ApiKey>>({
  type: ApiKeyRef,
  name: 'ApiKeyConnection',
  fields: (t) => ({ totalCount: t.int({ resolve: (connection) => connection.count() }) }),
});

const CreateApiKeyInput = builder.inputType('CreateApiKeyInput', {
  fields: (t) => ({
    name: t.string({ required: true, description: 'What it is for, to tell it from others.' }),
    scopes: t.stringList({ required: true, description: `One or more of ${permissions.join(', ')}.` }),
    orgId: t.string({ description: "The caller's organisation where absent, else the default one." }),
    allOrganisations: t.boolean({
      defaultValue: false,
      description:
        'Reaches every organisation in place of one. Only administrators of all organisations may give that.',
    }),
    expiresIn: t.int({ description: `Seconds, up to ${maxKeyLifeSeconds}; without an end where absent.` }),
  }),
});

const CreatedApiKey = builder
  .objectRef<{ readonly secret: string; readonly key: ApiKey }>('CreateApiKeyPayload')
  .implement({
    fields: (t) => ({
      key: t.exposeString('secret', {
        description: 'What the consumer shows as a bearer token. It cannot be seen again.',
      }),
      apiKey: t.expose('key', { type: ApiKeyRef }),
    }),
  });

builder.queryField('apiKeys', (t) =>
  t.field({
    type: ApiKeyConnection,
    needs: 'admin',
    description: 'The newest first.',
    args: { ...t.arg.connectionArgs() },
    resolve: (_root, args, { apiKeys, consumer }) => {
      checkBounds(args);
      keysetRange(args, String);
      return countedConnectionOf(
        () => apiKeys.page(consumer, args),
        (key) => apiKeys.cursorOf(key),
        () => apiKeys.count(consumer),
      );
    },
  }),
);

builder.mutationFields((t) => ({
  createApiKey: t.field({
    type: CreatedApiKey,
    needs: 'admin',
    description: 'Makes a key with which a consumer may do what its scopes say.',
    args: { input: t.arg({ type: CreateApiKeyInput, required: true }) },
    resolve: (_root, { input }, { apiKeys, consumer }) => {
      const { name, scopes, orgId, allOrganisations, expiresIn } = input;
      checkBounds({ orgId });
      return apiKeys.create(consumer, {
        ...{ name, permissions: scopes },
        orgId: orgId || undefined,
        allOrganisations: allOrganisations ?? undefined,
        expiresInSeconds: expiresIn ?? undefined,
      });
    },
  }),
  revokeApiKey: t.field({
    type: ApiKeyRef,
    needs: 'admin',
    description: 'Makes it good for nothing; what runs with it ends within seconds.',
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, args, { apiKeys, consumer }) => {
      checkBounds(args);
      return apiKeys.revoke(consumer, args.id);
    },
  }),
}));
