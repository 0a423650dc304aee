import type { AuditEntry } from '../audit/entry.ts';
import { keysetRange } from '../paging.ts';
import { builder } from './builder.ts';
import { type Connection, connectionOf } from './connections.ts';
import { checkBounds } from './inputs.ts';
import { encodeNodeId } from './node-ids.ts';

const AuditActorRef = builder.objectRef<AuditEntry>('AuditActor').implement({
  needs: 'audit:read',
  fields: (t) => ({
    kind: t.exposeString('actorKind', {
      description: '`admin-token`, `api-key`, `jwt`, `command-line`, `agent` or `gateway`.',
    }),
    id: t.exposeString('actorId', {
      description: "Names its credentials: an API key's id, a token's subject, an agent's uid.",
    }),
    label: t.exposeString('actorLabel'),
    address: t.exposeString('address', { nullable: true, description: 'Where it asked from.' }),
    requestId: t.exposeString('requestId', { nullable: true, description: '`X-Request-Id` of the request.' }),
  }),
});

const AuditSubjectRef = builder.objectRef<AuditEntry>('AuditSubject').implement({
  needs: 'audit:read',
  fields: (t) => ({
    type: t.exposeString('subjectType'),
    id: t.exposeString('subjectId', { description: 'A uid where it has one.' }),
    name: t.exposeString('subjectName', { nullable: true }),
  }),
});

const AuditEntryRef = builder.objectRef<AuditEntry>('AuditEntry').implement({
  needs: 'audit:read',
  description: 'Something that was changed, or that befell an agent. Entries never change; see docs/AUDIT.md.',
  fields: (t) => ({
    id: t.id({ resolve: ({ id }) => encodeNodeId('AuditEntry', String(id)) }),
    orgId: t.exposeString('orgId', {
      nullable: true,
      description: 'Null: of no organisation in particular, for consumers of all organisations alone.',
    }),
    at: t.expose('at', { type: 'DateTime', description: 'By the clock of the database.' }),
    action: t.exposeString('action'),
    actor: t.field({ type: AuditActorRef, resolve: (entry) => entry }),
    subject: t.field({ type: AuditSubjectRef, resolve: (entry) => entry }),
    outcome: t.exposeString('outcome', { description: '`OK`, or the code of the refusal.' }),
    details: t.field({ type: 'JSON', resolve: ({ details }) => details }),
    number: t.exposeFloat('number', {
      nullable: true,
      description: 'Its place in the chain of its organisation, from 1 on; null for the seconds until it is sealed.',
    }),
    hash: t.exposeString('hash', {
      nullable: true,
      description: 'Lower-case hex SHA-256 over the hash before and this entry; null until it is sealed.',
    }),
  }),
});

const AuditEntryConnection = builder.connectionObject<typeof AuditEntryRef, Connection<AuditEntry>>({
  type: AuditEntryRef,
  name: 'AuditEntryConnection',
  needs: 'audit:read',
});

const AuditFilterInput = builder.inputType('AuditFilter', {
  description: 'Every condition given must hold.',
  fields: (t) => ({
    actions: t.stringList({ description: 'One of these; docs/AUDIT.md lists them.' }),
    actorId: t.string(),
    subjectId: t.string(),
    outcome: t.string(),
    orgId: t.string(),
    since: t.field({ type: 'DateTime' }),
    until: t.field({ type: 'DateTime', description: 'Before then.' }),
  }),
});

builder.queryField('auditEntries', (t) =>
  t.field({
    type: AuditEntryConnection,
    needs: 'audit:read',
    description: 'The newest first.',
    args: { filter: t.arg({ type: AuditFilterInput }), ...t.arg.connectionArgs() },
    resolve: (_root, { filter, ...page }, { auditLog, consumer }) => {
      checkBounds(page);
      checkBounds(filter ?? {});
      keysetRange(page, String);
      const { actions, actorId, subjectId, outcome, orgId, since, until } = filter ?? {};
      const wanted = {
        ...{ actions: actions ?? undefined, actorId: actorId ?? undefined, subjectId: subjectId ?? undefined },
        ...{ outcome: outcome ?? undefined, orgId: orgId ?? undefined },
        ...{ since: since ?? undefined, until: until ?? undefined },
      };
      return connectionOf(
        () => auditLog.page(consumer, wanted, page),
        (entry) => auditLog.cursorOf(entry),
      );
    },
  }),
);
