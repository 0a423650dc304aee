import { once } from 'node:events';
import { WebSocket } from 'ws';
import type { Target } from './protocol.ts';

/** One consumer who sees every event. */
export interface Subscriber {
  /** From now on `onEvent` is told the sequence number of each event as it is read, and when. */
  onEvent: (sequence: number, atMs: number) => void;
  close(): void;
}

const query = 'subscription { anomalies { messageId payload } }';
const sequenceNumbers = /@(\d+)@/g;

/**
 * Subscribes. That the server has begun to send nobody can tell from the protocol: send an event and wait until it comes.
 * `onLost` is told when the server ends the connection or answers with errors.
 */
export async function subscribe(target: Target, onLost: (reason: string) => void): Promise<Subscriber> {
  const { subscriberUrl, graphqlToken } = target;
  const options = { perMessageDeflate: false };
  const socket =
    graphqlToken === null
      ? new WebSocket(subscriberUrl, options)
      : new WebSocket(subscriberUrl, 'graphql-transport-ws', options);
  await once(socket, 'open');
  if (graphqlToken !== null) {
    socket.send(JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${graphqlToken}` } }));
    const [answer] = await once(socket, 'message');
    if (!String(answer).includes('"connection_ack"')) throw new Error(`no connection_ack: ${answer}`);
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query } }));
  }

  let isClosing = false;
  const subscriber: Subscriber = {
    onEvent: () => {},
    close() {
      isClosing = true;
      socket.close();
    },
  };
  socket.on('message', (data) => {
    const atMs = performance.now();
    const text = data.toString();
    for (const [, digits] of text.matchAll(sequenceNumbers)) subscriber.onEvent(Number(digits), atMs);
    if (text.includes('"errors"')) onLost(`the subscriber was told: ${text.slice(0, 300)}`);
  });
  socket.on('error', (error) => onLost(`the subscriber: ${error.message}`));
  socket.once('close', (code) => {
    if (!isClosing) onLost(`the server closed the subscriber with ${code}`);
  });
  return subscriber;
}
