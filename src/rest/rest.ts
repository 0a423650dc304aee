import { AegisError } from '../errors.ts';
import type { RequestOrigin } from '../http/request-origin.ts';
import { createAgentRoutes } from './agent-routes.ts';
import { createApiRoutes } from './api-routes.ts';
import { createFamily, inputError, pathOf } from './environment.ts';
import { problemResponse } from './error-responses.ts';
import { createOperationsRoutes } from './operations-routes.ts';
import { createRegistrationRoutes } from './registration-routes.ts';
import type { RestServices } from './services.ts';

export type { Readiness, RestServices } from './services.ts';

/** REST as a function from requests to responses. */
export interface Rest {
  /** Answers every request, also one for a path that there is not; never rejects. */
  fetch(request: Request, origin: RequestOrigin): Promise<Response>;
}

/**
 * Builds REST: `/api/v1`, the earlier HTTP API's `/agents`, and what operators ask. The definitions that serve are those
 * of which `/openapi.json` is made.
 */
export function createRestApp(services: RestServices): Rest {
  const app = createFamily({ response: problemResponse, rejection: inputError }, services.logError);

  // Registration goes before the agents' routes, which ask for credentials on everything under `/agents/`.
  app.route('/', createRegistrationRoutes(services));
  app.route('/', createAgentRoutes(services));
  app.route('/', createApiRoutes(services));
  let document: Record<string, unknown> | null = null;
  app.route(
    '/',
    createOperationsRoutes(services, () => {
      document ??= { ...app.getOpenAPI31Document(documentHead(services.version)) };
      return document;
    }),
  );
  app.notFound((c) => problemResponse(new AegisError('NOT_FOUND'), pathOf(c)));

  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    description:
      'An API key, a JSON Web Token or `ADMIN_TOKEN` as a bearer token (RFC 6750). The role that a route names is the scope that it needs; `operator` is `admin` of all organisations.',
  });

  return { fetch: async (request, origin) => app.fetch(request, origin) };
}

function documentHead(version: string) {
  return {
    openapi: '3.1.0',
    info: {
      title: 'Aegis gateway',
      version,
      description:
        'REST routes of the gateway. `/api/v1` answers errors as `application/problem+json`; `/agents` keeps the plain texts of the earlier HTTP API. Bodies are read as JSON whatever their content type says.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    tags: [
      { name: 'agents', description: 'Who the agents are.' },
      { name: 'messages', description: 'What is sent to them.' },
      { name: 'registration', description: 'How agents register; open.' },
      { name: 'operations', description: 'What those who run the gateway ask.' },
    ],
  };
}
