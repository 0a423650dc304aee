import { createRoute, z } from '@hono/zod-openapi';
import { AegisError } from '../errors.ts';
import { countAddress, openSecurity } from './credentials.ts';
import { createFamily, type ErrorWording, inputError, type RestApp } from './environment.ts';
import { plainTextResponse, plainTextResponses } from './error-responses.ts';
import { nameText, optionalJson, optionalName } from './fields.ts';
import { jsonBody, readJsonBody } from './json-body.ts';
import { refuseOtherMethods } from './methods.ts';
import type { RestServices } from './services.ts';

const initSchema = z
  .object({
    agent_pubkey: z
      .string()
      .regex(/^[A-Za-z0-9+/]{43}=$/)
      .openapi({ description: 'Standard base64 of the 32 raw bytes of an Ed25519 public key.' }),
    org_id: optionalName.openapi({ description: "The gateway's DEFAULT_ORG where absent." }),
    host_id: nameText,
    machine_id_hash: optionalName,
    agent_version: optionalName,
    capabilities: optionalJson,
    platform: optionalJson,
    network: optionalJson,
  })
  .openapi('RegistrationInit');

const challengeSchema = z
  .object({
    registration_id: z.uuid(),
    nonce: z.string().openapi({ description: 'Base64 of 32 random bytes.' }),
    server_time: z.string().openapi({ example: '2026-11-23T12:10:34Z' }),
  })
  .openapi('RegistrationChallenge');

/** Absent texts are empty ones, which no registration has: each gets the answer of a wrong value. */
const proofText = z
  .string()
  .nullish()
  .transform((text) => text ?? '')
  .openapi({ type: 'string' });

const completeSchema = z
  .object({
    registration_id: proofText,
    host_id: proofText,
    signature: proofText.openapi({
      description: 'Standard base64 of the Ed25519 signature over the raw nonce, `server_time` and `host_id`.',
    }),
  })
  .openapi('RegistrationComplete', { required: ['registration_id', 'host_id', 'signature'] });

const registeredSchema = z.object({ agent_uid: z.uuid(), bootstrap_token: z.string() }).openapi('RegisteredAgent');

const initRoute = createRoute({
  method: 'post',
  path: '/agents/register/init',
  operationId: 'beginRegistration',
  summary: 'Begin the registration of an agent',
  tags: ['registration'],
  security: openSecurity,
  middleware: readJsonBody,
  request: { body: jsonBody(initSchema) },
  responses: {
    200: { description: 'What to sign', content: { 'application/json': { schema: challengeSchema } } },
    ...plainTextResponses(
      'BAD_PUBKEY',
      'BAD_USER_INPUT',
      'REGISTRATION_CLOSED',
      'PAYLOAD_TOO_LARGE',
      'RATE_LIMITED',
      'INTERNAL_SERVER_ERROR',
    ),
  },
});

const completeRoute = createRoute({
  method: 'post',
  path: '/agents/register/complete',
  operationId: 'completeRegistration',
  summary: 'Prove that the agent holds its key',
  description:
    'The same organisation, host and key give the same uid again. A wrong signature does not use the challenge up.',
  tags: ['registration'],
  security: openSecurity,
  middleware: readJsonBody,
  request: { body: jsonBody(completeSchema) },
  responses: {
    200: { description: 'Registered', content: { 'application/json': { schema: registeredSchema } } },
    ...plainTextResponses(
      'UNKNOWN_REGISTRATION',
      'BAD_SIGNATURE',
      'BAD_USER_INPUT',
      'SIGNATURE_VERIFY_FAILED',
      'AGENT_REVOKED',
      'KEY_CONFLICT',
      'PAYLOAD_TOO_LARGE',
      'RATE_LIMITED',
      'INTERNAL_SERVER_ERROR',
    ),
  },
});

const wording: ErrorWording = {
  response: plainTextResponse,
  // A bad key is told before anything else that is wrong.
  rejection: (rejection) =>
    rejection.issues.some(({ path }) => path[0] === 'agent_pubkey')
      ? new AegisError('BAD_PUBKEY')
      : inputError(rejection),
};

/** The two routes by which agents register over HTTP; open, and worded as the earlier HTTP API was. */
export function createRegistrationRoutes({
  registration,
  rateLimits,
  logError,
}: Pick<RestServices, 'registration' | 'rateLimits' | 'logError'>): RestApp {
  const app = createFamily(wording, logError);
  app.use('/agents/register/*', countAddress(rateLimits));

  app.openapi(initRoute, async (c) => {
    const body = c.req.valid('json');
    const { registrationId, nonce, serverTime } = await registration.begin({
      orgId: body.org_id,
      hostId: body.host_id,
      publicKey: body.agent_pubkey,
      machineIdHash: body.machine_id_hash,
      agentVersion: body.agent_version,
      capabilities: body.capabilities,
      platform: body.platform,
      network: body.network,
    });
    return c.json({ registration_id: registrationId, nonce, server_time: serverTime }, 200);
  });

  app.openapi(completeRoute, async (c) => {
    const body = c.req.valid('json');
    const { agentUid, bootstrapToken } = await registration.complete({
      registrationId: body.registration_id,
      hostId: body.host_id,
      signature: body.signature,
      remoteAddress: c.env.clientAddress,
    });
    return c.json({ agent_uid: agentUid, bootstrap_token: bootstrapToken }, 200);
  });

  refuseOtherMethods(app, wording);
  return app;
}
