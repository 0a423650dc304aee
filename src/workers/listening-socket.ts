import { lookup } from 'node:dns/promises';
import { _createServerHandle } from 'node:net';
import { getSystemErrorName } from 'node:util';

declare module 'net' {
  /** What node:net and node:cluster bind with; the types leave it out. A number is an error. */
  function _createServerHandle(address: string, port: number, family: number, fd: -1, flags: 0): BoundHandle | number;
  interface BoundHandle {
    readonly fd: number;
    /** Fills `name`; a number other than 0 is an error, of the binding too. */
    getsockname(name: { port?: number }): number;
    close(): void;
  }
}

/** An address that is held, and on which nothing is accepted here. */
export interface ListeningSocket {
  /** For the processes that accept. While it is open here dials wait, whether one of them is there or not. */
  readonly fd: number;
  readonly port: number;
  close(): void;
}

/** Rejects with the system's error where the address cannot be had. */
export async function bindSocket(host: string, port: number): Promise<ListeningSocket> {
  const { address, family } = await lookup(host);
  const handle = _createServerHandle(address, port, family, -1, 0);
  if (typeof handle === 'number') throw bindError(handle, address, port);
  const name: { port?: number } = {};
  const failure = handle.getsockname(name);
  if (failure !== 0) {
    handle.close();
    throw bindError(failure, address, port);
  }
  return { fd: handle.fd, port: name.port ?? port, close: () => handle.close() };
}

function bindError(errno: number, address: string, port: number): Error {
  const code = getSystemErrorName(errno);
  return Object.assign(new Error(`listen ${code}: ${address}:${port}`), { code, errno, address, port });
}
