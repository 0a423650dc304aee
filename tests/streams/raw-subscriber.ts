import { WebSocket } from 'ws';

/** A subscriber over graphql-transport-ws that keeps to no manners: it may stop reading, or be gone without a word. */
export interface RawSubscriber {
  readonly socket: WebSocket;
  /** Every message so far. */
  readonly messages: { readonly id?: string; readonly type: string; readonly payload?: unknown }[];
  /** The close code and reason, once closed. */
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
  send(message: unknown): void;
  subscribe(id: string, query: string, variables?: Readonly<Record<string, unknown>>): void;
}

/** Resolves when the gateway has acknowledged the connection. */
export async function openRawSubscriber(url: string, token: string): Promise<RawSubscriber> {
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/graphql`, 'graphql-transport-ws', {
    perMessageDeflate: false,
  });
  const messages: RawSubscriber['messages'] = [];
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.on('close', (code, reason) => resolve({ code, reason: String(reason) }));
  });
  socket.on('error', () => {});
  const send = (message: unknown) => socket.send(JSON.stringify(message));
  await new Promise<void>((resolve, reject) => {
    socket.on('open', () => send({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } }));
    socket.on('message', (text) => {
      const message = JSON.parse(String(text));
      if (message.type === 'connection_ack') resolve();
      else messages.push(message);
    });
    socket.on('close', () => reject(new Error('the gateway closes')));
  });
  return {
    socket,
    messages,
    closed,
    send,
    subscribe: (id, query, variables = {}) => send({ id, type: 'subscribe', payload: { query, variables } }),
  };
}
