import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';

/** What an instance calls itself: its host, its process and its start. */
export function newInstanceId(): string {
  return `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
}
