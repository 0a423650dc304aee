#!/usr/bin/env node
import { parseArgs } from 'node:util';
import { TokenKeyError } from './access/json-web-tokens.ts';
import { IdentityError } from './agent-gateway/key-files.ts';
import { ConfigError, readConfig } from './config.ts';
import { DatabaseLockedError } from './db/embedded.ts';
import { DocumentsError } from './http/documents.ts';
import { TlsError } from './http/tls.ts';

const usage = `Usage: aegis-gateway [command]

  serve       run the gateway (the default)
  migrate     bring the database's schema up to date and stop
  keys        create | list | revoke: API keys of consumers (docs/ACCESS.md)
              show | prepare | rotate: the gateway's own keys (docs/OPERATIONS.md)
  tokens      create: make an enrolment token for a v2 agent
              [--org …] [--agent …] [--expires-in 3600] [--note …]
  audit       head: the head of each chain of the audit log, to be kept elsewhere
              verify: follow the chains [--heads FILE]; exits with 1 where one is broken
  demo        run a gateway and 25 agents, and show what a console sees
              --once: one round, checked; exits with 0 or 1
  simulate    play agents against any gateway, as deployed or of v2
              --url ws://127.0.0.1:8080/ws/agent --agents 100 --rate 50 [--seconds 60] [--handoff]
              [--protocol v1|v2|mixed] [--pin <fingerprint>]…; without a pin v2 trusts the first gateway that answers

Environment variables are listed in docs/CONFIGURATION.md.
`;

/** Exit codes: 0 done, 1 failed, 2 misused or misconfigured. */
async function main(args: readonly string[]): Promise<number> {
  const [command = 'serve', ...rest] = args;
  switch (command) {
    case 'serve': {
      const config = readConfig();
      if (config.workers > 1) {
        const { serveWithWorkers } = await import('./commands/serve-with-workers.ts');
        return serveWithWorkers(config, process.argv[1] ?? '');
      }
      const { serve } = await import('./commands/serve.ts');
      return serve(config);
    }
    case 'worker': {
      const { work } = await import('./commands/worker.ts');
      return work(readConfig());
    }
    case 'migrate': {
      const { migrateOnce } = await import('./commands/migrate.ts');
      return migrateOnce(readConfig());
    }
    case 'keys': {
      const { keysFromArguments } = await import('./commands/keys.ts');
      return keysFromArguments(rest, readConfig());
    }
    case 'tokens': {
      const { tokensFromArguments } = await import('./commands/tokens.ts');
      return tokensFromArguments(rest, readConfig());
    }
    case 'audit': {
      const { auditFromArguments } = await import('./commands/audit.ts');
      return auditFromArguments(rest, readConfig());
    }
    case 'demo': {
      const { values } = parseArgs({ args: rest, options: { once: { type: 'boolean', default: false } } });
      const { demo } = await import('./commands/demo.ts');
      return demo({ once: values.once });
    }
    case 'simulate': {
      const { simulateFromArguments } = await import('./commands/simulate.ts');
      return simulateFromArguments(rest);
    }
    case 'help':
    case '--help':
      process.stdout.write(usage);
      return 0;
    default:
      process.stderr.write(usage);
      return 2;
  }
}

/** What an operator can mend is told in a sentence; anything else with its stack. */
function explain(error: unknown): { text: string; exitCode: number } {
  if (error instanceof ConfigError) return { text: error.message, exitCode: 2 };
  if (
    error instanceof IdentityError ||
    error instanceof TlsError ||
    error instanceof DocumentsError ||
    error instanceof TokenKeyError ||
    error instanceof DatabaseLockedError
  )
    return { text: error.message, exitCode: 2 };
  if (error instanceof Error && 'code' in error) {
    if (error.code === 'EADDRINUSE') return { text: `The address is in use: ${error.message}`, exitCode: 1 };
    if (String(error.code).startsWith('ERR_PARSE_ARGS')) return { text: `${error.message}\n\n${usage}`, exitCode: 2 };
  }
  return { text: error instanceof Error ? (error.stack ?? error.message) : String(error), exitCode: 1 };
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const { text, exitCode } = explain(error);
  process.stderr.write(`${text}\n`);
  process.exitCode = exitCode;
}
