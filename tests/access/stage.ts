import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { answerSchema } from '../schema/consumer-stage.ts';
import type { TestGateway } from '../support/gateway.ts';

const created = z.object({ createApiKey: z.object({ key: z.string(), apiKey: z.object({ id: z.string() }) }) });

export interface NewKey {
  readonly scopes: readonly string[];
  readonly orgId?: string;
  readonly allOrganisations?: boolean;
  readonly expiresIn?: number;
  readonly name?: string;
}

/** Asks GraphQL with a bearer token; ADMIN_TOKEN unless there is another. */
export async function ask(
  gateway: TestGateway,
  query: string,
  variables: Readonly<Record<string, unknown>> = {},
  token: string = gateway.token,
) {
  const response = await gateway.fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
    authorization: `Bearer ${token}`,
  });
  return { status: response.status, ...answerSchema.parse(await response.json()) };
}

/** Makes an API key. */
export async function makeKey(
  gateway: TestGateway,
  input: NewKey,
): Promise<{ readonly key: string; readonly id: string }> {
  const mutation = 'mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { key apiKey { id } } }';
  const answer = await ask(gateway, mutation, { input: { name: 'test', ...input } });
  const { createApiKey } = created.parse(answer.data);
  return { key: createApiKey.key, id: createApiKey.apiKey.id };
}

export async function revokeKey(gateway: TestGateway, id: string): Promise<void> {
  const { errors } = await ask(gateway, 'mutation ($id: ID!) { revokeApiKey(id: $id) { state } }', { id });
  if (errors) throw new Error(JSON.stringify(errors));
}

/** What ends a subscription over WebSocket: the close code, or null where the subscription ended and not the socket. */
export function subscribed(gateway: TestGateway, token: string, query: string) {
  let tellOpen = () => {};
  const open = new Promise<void>((resolve) => {
    tellOpen = resolve;
  });
  const closed = new Promise<number>((resolve) => {
    const client = createClient({
      url: gateway.subscriptionUrl,
      webSocketImpl: WebSocket,
      connectionParams: { authorization: `Bearer ${token}` },
      retryAttempts: 0,
      lazy: false,
      on: {
        connected: () => {
          client.subscribe({ query }, { next: () => {}, error: () => {}, complete: () => {} });
          tellOpen();
        },
        closed: (event) => resolve(z.object({ code: z.number() }).parse(event).code),
      },
      onNonLazyError: () => {},
    });
  });
  return { open, closed };
}
