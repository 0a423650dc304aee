import { request as plain } from 'node:http';
import { request as secure } from 'node:https';

// Asks the gateway in this container whether it lives: exit code 0 or 1. Says nothing of its database (docs/OPERATIONS.md, "Health").

const { WEBSOCKET_PORT = '8080', TLS_CERT_PATH = '' } = process.env;
const request = TLS_CERT_PATH === '' ? plain : secure;
const asked = request(
  // The certificate is for names that clients use.
  { host: '127.0.0.1', port: WEBSOCKET_PORT, path: '/healthz', timeout: 4_000, rejectUnauthorized: false },
  ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1),
);
for (const fault of ['error', 'timeout']) asked.once(fault, () => process.exit(1));
asked.end();
