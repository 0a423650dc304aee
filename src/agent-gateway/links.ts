import type { Bus } from '../bus/bus.ts';
import { poll, repeat } from '../clock.ts';
import type { ErrorCode } from '../errors.ts';
import type { Admissions, LinkStanding } from '../fleet/admission.ts';
import type { AgentProtocol } from '../fleet/agent.ts';
import type { GatewayContext, LinkReport } from './context.ts';

/** One agent's connection, in whatever protocol, as the instance sees it. */
export interface Link {
  readonly protocol: AgentProtocol;
  readonly agentUid: string;
  /** Standard base64 of the key that it authenticated with. */
  readonly publicKey: string;
  /** Null unless the link owns, or owned, its agent. */
  readonly epoch: number | null;
  /** Whether it owns its agent and no newer link does. */
  readonly ownsAgent: boolean;
  readonly isOpen: boolean;
  /** Whether it is not read, since its agent has overdrawn its allowance. */
  readonly isPaused: boolean;
  /** Takes over what has changed about the agent: approval, keys, channels. */
  update(standing: LinkStanding): Promise<void>;
  /** A newer link owns the agent: what is under way is still read, then this one closes. */
  supersede(): void;
  /** Keeps both sides sure of each other; called every few seconds. */
  checkHealth(nowMs: number): void;
  /** Ends the link with the code's close code. */
  close(code: ErrorCode): void;
  /** Ends the link once its agent can bear it, say when it has registered. */
  end(closeCode: number, reason: string): void;
}

/** Every link of this instance, by agent. */
export interface Links {
  add(link: Link): void;
  /** The link has come to own its agent: older ones of the same agent close. */
  own(link: Link): void;
  remove(link: Link): void;
  readonly count: number;
  countOf(protocol: AgentProtocol): number;
  /** Those that wait for their allowance. */
  readonly paused: number;
  start(): void;
  /** Ends the links that there are, a few at a time over `overMs`, and those that come meanwhile; 0: at once. */
  letGo(timing: { readonly overMs: number }): Promise<void>;
  /** Ends every link, and from then on those that still come; resolves when none is left, after `timeoutMs` at the latest. */
  closeAll(timing: { readonly timeoutMs: number }): Promise<void>;
}

const restartCloseCode = 1012;
const restartReason = 'The gateway restarts';
const closeIntervalMs = 100;
/** v2 agents come back within 5 s by themselves; more of them than this a second are told to take longer. */
const returnsPerSecond = 1_000;
const mostReturnSeconds = 15;
const healthIntervalMs = 5_000;
const refreshIntervalMs = 10_000;
/** The link of an agent that is revoked or disconnected is closed within a second, wherever it is and whatever hint was lost. */
const unwantedIntervalMs = 500;
const refreshBatchLinks = 5_000;

export function createLinks(
  context: Pick<GatewayContext, 'clock'> & {
    readonly admissions: Pick<Admissions, 'standings' | 'closedLately' | 'onOwnershipLost'>;
    readonly report: Pick<LinkReport, 'error'>;
  },
  bus: Bus,
): Links {
  const { admissions, clock, report } = context;
  const byAgent = new Map<string, Set<Link>>();
  const releases: (() => void)[] = [];
  const counts = { v1: 0, v2: 0 };
  let count = 0;
  let isDraining = false;
  let turn = Promise.resolve();
  let onEmpty = () => {};

  function of(agentUid: string): Link[] {
    return [...(byAgent.get(agentUid) ?? [])];
  }

  function all(): Link[] {
    return [...byAgent.values()].flatMap((links) => [...links]);
  }

  /** A newer owner closes older ones; a newer link in quarantine closes those with the same key, and no owner ever. */
  function isSucceededBy(older: Link, newer: Link): boolean {
    if (newer.ownsAgent) return older.epoch !== null && (newer.epoch ?? 0) > older.epoch;
    return newer.epoch === null && older.epoch === null && older.publicKey === newer.publicKey;
  }

  function own(link: Link): void {
    for (const other of of(link.agentUid)) {
      if (other === link) continue;
      if (isSucceededBy(other, link)) other.supersede();
      // Links are not always added in the order in which the database let them in.
      else if (other.ownsAgent && isSucceededBy(link, other)) link.supersede();
    }
    if (link.ownsAgent && link.epoch !== null) bus.publish('owned', [{ agentUid: link.agentUid, epoch: link.epoch }]);
  }

  /** Looks up how links stand: their agent was approved, revoked, given another key or another set of channels. */
  async function refresh(links: readonly Link[]): Promise<void> {
    for (let start = 0; start < links.length; start += refreshBatchLinks) {
      const batch = links.slice(start, start + refreshBatchLinks).filter((link) => link.isOpen);
      const uids = batch.map((link) => link.agentUid);
      const standings = await admissions.standings(batch);
      await Promise.all(batch.map((link, index) => settle(link, uids[index], standings[index] ?? null)));
    }
  }

  async function settle(link: Link, askedFor: string | undefined, standing: LinkStanding | null): Promise<void> {
    // A registration may have made it another agent's link since.
    if (link.agentUid !== askedFor) return;
    try {
      if (standing) supersedeBefore(standing.agentUid, standing.agentEpoch);
      if (standing) await link.update(standing);
      // Another link of the agent has taken it to another organisation.
      else link.close('LINK_SUPERSEDED');
    } catch (error) {
      report.error(error, 'a link could not be brought up to date');
    }
  }

  async function closeUnwanted(): Promise<void> {
    if (count === 0) return;
    for (const { agentUid, throughEpoch } of await admissions.closedLately())
      for (const link of of(agentUid)) {
        if (throughEpoch === null) link.close('AGENT_REVOKED');
        else if (link.epoch !== null && link.epoch <= throughEpoch) link.close('LINK_DISCONNECTED');
      }
  }

  /** Links of this instance are superseded where the agent has a newer one, here or anywhere. */
  function supersedeBefore(agentUid: string, epoch: number): void {
    for (const link of of(agentUid)) if (link.epoch !== null && link.epoch < epoch) link.supersede();
  }

  function leave(link: Link, seconds: number): void {
    const isTold = link.protocol === 'v2' && seconds > 5;
    link.end(restartCloseCode, isTold ? `retry-after=${seconds}` : restartReason);
  }

  /** Resolves when no link is left, after `timeoutMs` at the latest. */
  function passOrEmpty(timeoutMs: number): Promise<void> {
    if (count === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = clock.after(timeoutMs, resolve);
      onEmpty = () => {
        cancel();
        resolve();
      };
    });
  }

  /** Where other gateways take them, agents are let go a few at a time, those that come meanwhile among them. */
  async function leaveInTurn(overMs: number, seconds: number): Promise<void> {
    const told = new Set<Link>();
    for (let leftMs = overMs; leftMs > 0; leftMs -= closeIntervalMs) {
      const open = all().filter((link) => link.isOpen);
      if (open.length === 0) return;
      const untold = open.filter((link) => !told.has(link));
      const share = Math.ceil((untold.length * closeIntervalMs) / leftMs);
      for (const link of untold.slice(0, share)) {
        told.add(link);
        leave(link, seconds);
      }
      await passOrEmpty(closeIntervalMs);
    }
  }

  function returnSeconds(): number {
    return Math.min(mostReturnSeconds, Math.ceil(counts.v2 / returnsPerSecond));
  }

  /** One look at a time, so that an older one cannot undo what a newer one has found. */
  function refreshInTurn(pick: () => readonly Link[]): Promise<void> {
    turn = turn
      .then(() => refresh(pick()))
      .catch((error) => report.error(error, 'the standing of links could not be read'));
    return turn;
  }

  return {
    add(link) {
      const links = byAgent.get(link.agentUid) ?? new Set();
      byAgent.set(link.agentUid, links.add(link));
      count++;
      counts[link.protocol]++;
      own(link);
      if (isDraining) link.end(restartCloseCode, restartReason);
    },
    own,
    remove(link) {
      const links = byAgent.get(link.agentUid);
      if (!links?.delete(link)) return;
      count--;
      counts[link.protocol]--;
      if (links.size === 0) byAgent.delete(link.agentUid);
      if (count === 0) onEmpty();
    },
    get count() {
      return count;
    },
    countOf: (protocol) => counts[protocol],
    get paused() {
      return all().filter((link) => link.isPaused).length;
    },
    start() {
      admissions.onOwnershipLost((agentUid, epoch) => {
        for (const link of of(agentUid)) if (link.epoch === epoch) link.supersede();
      });
      const refreshAll = poll(
        clock,
        refreshIntervalMs,
        () => refreshInTurn(all),
        (error) => report.error(error, 'the standing of links could not be read'),
      );
      releases.push(
        refreshAll.stop,
        bus.subscribe('missed', refreshAll.now),
        bus.subscribe('agents', ({ agentUids }) => {
          void refreshInTurn(() => agentUids.flatMap(of));
        }),
        bus.subscribe('owned', (owned) => {
          for (const { agentUid, epoch } of owned) supersedeBefore(agentUid, epoch);
        }),
        bus.subscribe('disconnect', ({ agentUids, reason }) => {
          for (const link of agentUids.flatMap(of)) link.close(reason);
        }),
        clock.every(healthIntervalMs, () => {
          const nowMs = clock.now();
          for (const link of all()) link.checkHealth(nowMs);
        }),
        // What a lost hint left behind.
        repeat(clock, unwantedIntervalMs, closeUnwanted, (error) =>
          report.error(error, 'revoked and disconnected agents could not be looked up'),
        ),
      );
    },
    async letGo({ overMs }) {
      const seconds = returnSeconds();
      if (overMs > 0) return leaveInTurn(overMs, seconds);
      for (const link of all()) leave(link, seconds);
    },
    async closeAll({ timeoutMs }) {
      for (const release of releases.splice(0)) release();
      isDraining = true;
      const seconds = returnSeconds();
      for (const link of all()) leave(link, seconds);
      await passOrEmpty(timeoutMs);
    },
  };
}
