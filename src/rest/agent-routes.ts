import { createRoute, z } from '@hono/zod-openapi';
import { AegisError } from '../errors.ts';
import { agentSchema, listedAgent, listedAgentSchema, singleAgent } from './agent-body.ts';
import { needing, requireCredentials } from './credentials.ts';
import { createFamily, type ErrorWording, inputError, type RestApp } from './environment.ts';
import { plainTextResponse, plainTextResponses } from './error-responses.ts';
import { agentRef, labelList, maxNoteCharacters, nameText } from './fields.ts';
import { jsonBody, notJsonText, readJsonBody } from './json-body.ts';
import { refuseOtherMethods } from './methods.ts';
import type { RestServices } from './services.ts';

/** A condition in the query; an empty one is none. */
const condition = nameText
  .or(z.literal(''))
  .optional()
  .transform((text) => text || undefined)
  .openapi({ type: 'string' });

const querySchema = z.object({
  label: z
    .union([nameText.or(z.literal('')), z.array(nameText.or(z.literal('')))])
    .optional()
    .transform((given) => [given ?? []].flat().filter((label) => label !== ''))
    .openapi({ type: 'array', items: { type: 'string' }, description: 'Repeated: every one of these.' }),
  hostname: condition.openapi({ description: 'The host name that the agent reported in `platform.hostname`.' }),
  host_id: condition,
  ip: condition.openapi({ description: 'An address anywhere in `network`.' }),
});

const params = z.object({ uid: agentRef });

const listRoute = createRoute({
  method: 'get',
  path: '/agents',
  operationId: 'listAgents',
  summary: 'List agents by name',
  description: 'Every condition given must hold.',
  tags: ['agents'],
  ...needing('agents:read'),
  request: { query: querySchema },
  responses: {
    200: {
      description: 'The agents that match',
      content: {
        'application/json': {
          schema: z.object({ agents: z.array(listedAgentSchema), total: z.int() }).openapi('AgentList'),
        },
      },
    },
    ...plainTextResponses('BAD_USER_INPUT', 'UNAUTHENTICATED', 'FORBIDDEN', 'RATE_LIMITED', 'INTERNAL_SERVER_ERROR'),
  },
});

const getRoute = createRoute({
  method: 'get',
  path: '/agents/{uid}',
  operationId: 'getAgent',
  summary: 'One agent',
  tags: ['agents'],
  ...needing('agents:read'),
  request: { params },
  responses: {
    200: { description: 'The agent', content: { 'application/json': { schema: agentSchema } } },
    ...plainTextResponses(
      'UNAUTHENTICATED',
      'FORBIDDEN',
      'RATE_LIMITED',
      'AGENT_NOT_FOUND',
      'AGENT_NAME_AMBIGUOUS',
      'INTERNAL_SERVER_ERROR',
    ),
  },
});

const changeErrors = plainTextResponses(
  'BAD_USER_INPUT',
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'RATE_LIMITED',
  'AGENT_NOT_FOUND',
  'AGENT_NAME_AMBIGUOUS',
  'PAYLOAD_TOO_LARGE',
  'INTERNAL_SERVER_ERROR',
);

const labelsRoute = createRoute({
  method: 'put',
  path: '/agents/{uid}/labels',
  operationId: 'changeAgentLabels',
  summary: 'Add labels to an agent and take others away',
  tags: ['agents'],
  ...needing('agents:manage', readJsonBody),
  request: {
    params,
    body: jsonBody(z.object({ add: labelList, remove: labelList }).openapi('LabelChange')),
  },
  responses: {
    200: {
      description: 'The labels that the agent has now',
      content: {
        'application/json': {
          schema: z.object({ agent_uid: z.uuid(), labels: z.array(z.string()) }).openapi('AgentLabels'),
        },
      },
    },
    ...changeErrors,
  },
});

const noteRoute = createRoute({
  method: 'put',
  path: '/agents/{uid}/note',
  operationId: 'setAgentNote',
  summary: 'Set the note about an agent',
  tags: ['agents'],
  ...needing('agents:manage', readJsonBody),
  request: {
    params,
    body: jsonBody(z.object({ note: z.string().max(maxNoteCharacters) }).openapi('NoteChange')),
  },
  responses: {
    200: {
      description: 'The note as it is now',
      content: {
        'application/json': { schema: z.object({ agent_uid: z.uuid(), note: z.string() }).openapi('AgentNote') },
      },
    },
    ...changeErrors,
  },
});

const wording: ErrorWording = {
  response: plainTextResponse,
  rejection(rejection) {
    if (rejection.target === 'param') return new AegisError('AGENT_NOT_FOUND');
    // The earlier API took a body of another shape for a body that is not JSON.
    const wrongShape = rejection.target === 'json' && rejection.issues.some(({ code }) => code === 'invalid_type');
    return wrongShape ? new AegisError('BAD_USER_INPUT', notJsonText) : inputError(rejection);
  },
};

/** `/agents`: the earlier HTTP API's management of agents, errors as plain text. */
export function createAgentRoutes({
  authenticate,
  rateLimits,
  fleet,
  logError,
}: Pick<RestServices, 'authenticate' | 'rateLimits' | 'fleet' | 'logError'>): RestApp {
  const app = createFamily(wording, logError);
  app.use('/agents/*', requireCredentials({ authenticate, rateLimits }));

  app.openapi(listRoute, async (c) => {
    const { label, hostname, host_id, ip } = c.req.valid('query');
    const found = await fleet.all(c.var.consumer, { labels: label, hostname, hostId: host_id, ip });
    return c.json({ agents: found.map(listedAgent), total: found.length }, 200);
  });

  app.openapi(getRoute, async (c) => {
    const agent = await fleet.find(c.var.consumer, c.req.valid('param').uid);
    if (agent === null) throw new AegisError('AGENT_NOT_FOUND');
    return c.json(singleAgent(agent), 200);
  });

  app.openapi(labelsRoute, async (c) => {
    const { add, remove } = c.req.valid('json');
    const agent = await fleet.setLabels(c.var.consumer, c.req.valid('param').uid, add ?? [], remove ?? []);
    return c.json({ agent_uid: agent.uid, labels: [...agent.labels] }, 200);
  });

  app.openapi(noteRoute, async (c) => {
    const { note } = c.req.valid('json');
    const agent = await fleet.setNote(c.var.consumer, c.req.valid('param').uid, note);
    return c.json({ agent_uid: agent.uid, note: agent.note ?? '' }, 200);
  });

  refuseOtherMethods(app, wording);
  addPathErrors(app);
  return app;
}

/** Paths under `/agents/` that lead nowhere, each with the text of the earlier HTTP API. */
function addPathErrors(app: RestApp): void {
  app.all('/agents/*', (c) => {
    const [ref, ...rest] = c.req.path.slice('/agents/'.length).split('/');
    if (ref === '') throw new AegisError('BAD_USER_INPUT', 'Agent UID required');
    throw new AegisError('NOT_FOUND', rest.length > 1 ? 'Invalid path' : 'Invalid endpoint');
  });
}
