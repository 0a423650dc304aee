import { AegisError } from '../errors.ts';
import { addAgentStatusRoute } from './agent-status-route.ts';
import { addBroadcastRoute } from './broadcast-route.ts';
import { requireCredentials } from './credentials.ts';
import { createFamily, type ErrorWording, inputError, type RestApp } from './environment.ts';
import { problemResponse } from './error-responses.ts';
import { addMessageRoute } from './message-route.ts';
import { refuseOtherMethods } from './methods.ts';
import { addSendRoute } from './send-route.ts';
import type { RestServices } from './services.ts';

const wording: ErrorWording = {
  response: problemResponse,
  rejection(rejection) {
    if (rejection.target !== 'param') return inputError(rejection);
    const ofMessage = rejection.issues.some(({ path }) => path[0] === 'message_id');
    return new AegisError(ofMessage ? 'MESSAGE_NOT_FOUND' : 'AGENT_NOT_FOUND');
  },
};

/** `/api/v1`: JSON in, JSON out, errors as problems. */
export function createApiRoutes(services: RestServices): RestApp {
  const app = createFamily(wording, services.logError);
  app.use('/api/*', requireCredentials(services));
  addAgentStatusRoute(app, services);
  addSendRoute(app, services);
  addBroadcastRoute(app, services);
  addMessageRoute(app, services);
  refuseOtherMethods(app, wording);
  app.all('/api/*', () => {
    throw new AegisError('NOT_FOUND');
  });
  return app;
}
