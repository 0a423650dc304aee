import { readConfig } from '../config.ts';
import { createConsumerClient, GatewayDocument } from '../consumer-client/client.ts';
import { startGateway } from '../gateway.ts';
import { createLog } from '../telemetry/log.ts';
import { type AlarmLedger, createAlarmLedger } from './demo/alarm-ledger.ts';
import { type Board, createBoard } from './demo/board.ts';
import { type DemoFleet, startDemoFleet } from './demo/demo-fleet.ts';
import { playOn, playRound } from './demo/plays.ts';
import type { Stage } from './demo/scenes.ts';
import { until } from './demo/until.ts';
import { eventSubscriptions, startWatch } from './demo/watch.ts';

/** How long one round may take, the start of the embedded database included. */
const roundTimeoutMs = 24_000;
/** After this a round that cannot even be taken down is cut short. */
const cutShortMs = 29_000;
/** A second signal within this time is the same one, passed on by whoever started this process. */
const sameSignalMs = 1_000;

/**
 * A gateway in memory with 25 agents, and what a console sees of them, until SIGINT. With `once`, one bounded round that is
 * checked: resolves 0 where everything was seen as it should be, else 1, and says what was wrong.
 */
export async function demo(options: { readonly once: boolean }): Promise<number> {
  const { stdout } = process;
  const board = createBoard({
    write: (text) => stdout.write(text),
    // `hasColors` knows NO_COLOR (no-color.org).
    colours: stdout.isTTY && stdout.hasColors(),
    width: () => (stdout.isTTY ? stdout.columns : null),
    now: () => new Date(),
  });
  const startedMs = performance.now();
  const ending = new AbortController();
  endOnSignals(ending);
  const bounds = options.once ? boundRound(ending, board) : [];
  try {
    await withGateway(board, ending.signal, options.once ? playRound : playOn);
    const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
    board.title(options.once ? `demo: ok after ${seconds} s` : 'demo: stopped');
    return 0;
  } catch (error) {
    if (!options.once && ending.signal.aborted) {
      board.title('demo: stopped');
      return 0;
    }
    board.title(`demo: failed: ${error instanceof Error ? error.message : error}`);
    return 1;
  } finally {
    for (const timer of bounds) clearTimeout(timer);
  }
}

/** Builds everything up, lets `play` have it, and takes it down again, last-first. Throws where something stays open. */
async function withGateway(
  board: Board,
  signal: AbortSignal,
  play: (stage: Stage, ledger: AlarmLedger) => Promise<void>,
): Promise<void> {
  // Its own configuration: a demo has no business in the database that the environment names.
  const config = readConfig({ WEBSOCKET_PORT: '0', DATA_DIR: 'memory', LOG_LEVEL: 'warn' });
  const token = config.adminToken?.token ?? '';
  board.title('Aegis demo: a gateway, 25 agents, and what a console sees of them');
  board.note('Starting an embedded database in memory …');
  const gateway = await startGateway(config, createLog(config.logLevel));
  const url = `http://${config.listenHost}:${gateway.port}`;
  const agentUrl = `ws://${config.listenHost}:${gateway.port}${config.agentPath}`;
  const metricIs = (name: string, value: number) => async () => (await readMetric(url, token, name)) === value;
  const ledger = createAlarmLedger();
  const watch = startWatch(createConsumerClient({ url, token }), board, ledger.seen);
  const client = createConsumerClient({ url, token });
  let fleet: DemoFleet | null = null;
  try {
    board.note(`GraphiQL: ${url}/graphql with the headers {"authorization": "Bearer ${token}"}`);
    board.note('Ctrl-C ends it.\n');
    await until('live subscriptions', metricIs('aegis_subscriptions', eventSubscriptions), {
      timeoutMs: 5_000,
      signal,
    });
    const { keys } = (await client.query(GatewayDocument)).gateway;
    const pins = [keys.current, ...(keys.next === null ? [] : [keys.next])];
    fleet = await startDemoFleet({ url: agentUrl, pins, onSent: ledger.sent });
    let tickets = 0;
    await play({ client, fleet, watch, board, signal, nextTicket: () => `demo-${++tickets}` }, ledger);
    await fleet.close();
    await watch.close();
    const closing = { timeoutMs: 3_000, signal: new AbortController().signal };
    for (const protocol of ['v1', 'v2'])
      await until('every link closed', metricIs(`aegis_links{protocol="${protocol}"}`, 0), closing);
    await until('every subscription ended', metricIs('aegis_subscriptions', 0), closing);
  } finally {
    await fleet?.close();
    await watch.close();
    await client.close();
    await gateway.stop();
  }
  board.passed('nothing left open');
}

/** One sample of `/metrics`; NaN where there is none of this name. */
async function readMetric(url: string, token: string, name: string): Promise<number> {
  const response = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  const line = (await response.text()).split('\n').find((text) => text.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1) ?? Number.NaN);
}

/** Ends a round that takes too long, and the process where even that takes too long. */
function boundRound(ending: AbortController, board: Board): readonly NodeJS.Timeout[] {
  return [
    setTimeout(() => ending.abort(new Error(`not done after ${roundTimeoutMs / 1_000} s`)), roundTimeoutMs),
    setTimeout(() => {
      board.title(`demo: failed: not taken down after ${cutShortMs / 1_000} s`);
      process.exit(1);
    }, cutShortMs),
  ];
}

/** Ends the demo at SIGINT or SIGTERM, or when nobody reads its output any more; a second signal ends the process at once. */
function endOnSignals(ending: AbortController): void {
  let firstMs: number | null = null;
  const end = () => {
    firstMs ??= performance.now();
    if (performance.now() - firstMs > sameSignalMs) process.exit(1);
    ending.abort(new Error('interrupted'));
  };
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, end);
  process.stdout.on('error', end);
}
