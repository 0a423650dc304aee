import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { z } from 'zod';
import { type Command, connected, failure } from './load/protocol.ts';
import type { Sizes } from './options.ts';
import { projectRoot, watch } from './processes.ts';
import type { Server } from './servers.ts';

/** A load generator (`load/main.ts`), in a process of its own. It keeps its agents until it is ended. */
export interface Generator {
  /** Rejects where the generator could not do it, or a server ended a connection. */
  order<Reply>(command: Command, reply: z.ZodType<Reply>): Promise<Reply>;
  end(): Promise<void>;
}

function startGenerator(): Generator {
  const child = fork(join(projectRoot, 'bench/load/main.ts'), {
    cwd: projectRoot,
    execArgv: ['--import', 'tsx'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  watch(child);
  const exited = once(child, 'exit');

  return {
    async order(command, reply) {
      const cancel = new AbortController();
      try {
        const answered = once(child, 'message', { signal: cancel.signal });
        child.send(command);
        const ended = exited.then(() => Promise.reject(new Error('the load generator ended')));
        const [message] = await Promise.race([answered, ended]);
        const failed = failure.safeParse(message);
        if (failed.success) throw new Error(failed.data.failed);
        return reply.parse(message);
      } finally {
        cancel.abort();
      }
    },
    async end() {
      if (child.connected) child.disconnect();
      await exited;
    },
  };
}

/** Ends the generator, and so its agents, when `work` is done. */
export async function withGenerator<Result>(work: (generator: Generator) => Promise<Result>): Promise<Result> {
  const generator = startGenerator();
  try {
    return await work(generator);
  } finally {
    await generator.end();
  }
}

/** New agents come to `server`. Fails where it has lost any of those before. */
export async function connect(generator: Generator, { target }: Server, agents: number, sizes: Sizes): Promise<void> {
  await generator.order({ do: 'connect', target, agents, atOnce: sizes.handshakesAtOnce }, connected);
}
