import type { Bus } from '../bus/bus.ts';
import { repeat } from '../clock.ts';
import type { GatewayContext } from './context.ts';
import type { V1Link } from './v1-link.ts';

/** Every link of this instance, by agent. */
export interface Links {
  add(link: V1Link): void;
  /** The link has come to own its agent: older ones of the same agent close. */
  own(link: V1Link): void;
  remove(link: V1Link): void;
  readonly count: number;
  start(): void;
  /** Closes every link, a few at a time, within `timeoutMs`. */
  closeAll(timeoutMs: number): Promise<void>;
}

const healthIntervalMs = 5_000;
const refreshIntervalMs = 10_000;
const refreshBatchLinks = 5_000;

export function createLinks(context: GatewayContext, bus: Bus): Links {
  const { admissions, clock, report } = context;
  const byAgent = new Map<string, Set<V1Link>>();
  const releases: (() => void)[] = [];
  let count = 0;

  function of(agentUid: string): V1Link[] {
    return [...(byAgent.get(agentUid) ?? [])];
  }

  function all(): V1Link[] {
    return [...byAgent.values()].flatMap((links) => [...links]);
  }

  /** A newer owner closes older owners; a newer link in quarantine closes those with the same key, and no owner ever. */
  function own(link: V1Link): void {
    for (const other of of(link.agentUid)) {
      if (other === link) continue;
      const isOlderOwner = link.ownsAgent && other.epoch !== null && (link.epoch ?? 0) > other.epoch;
      const isSameStranger = link.epoch === null && other.epoch === null && other.publicKey === link.publicKey;
      if (isOlderOwner || isSameStranger) other.supersede();
    }
  }

  /** Looks up how links stand: their agent was approved, revoked, given another key or another set of channels. */
  async function refresh(links: readonly V1Link[]): Promise<void> {
    for (let start = 0; start < links.length; start += refreshBatchLinks) {
      const batch = links.slice(start, start + refreshBatchLinks).filter((link) => link.isOpen);
      const standings = await admissions.standings(batch);
      for (const [index, link] of batch.entries()) {
        const standing = standings[index];
        if (standing && link.agentUid === standing.agentUid) await link.update(standing);
      }
    }
  }

  function refreshNow(links: readonly V1Link[]): void {
    refresh(links).catch((error) => report.error(error, 'the standing of links could not be read'));
  }

  return {
    add(link) {
      const links = byAgent.get(link.agentUid) ?? new Set();
      byAgent.set(link.agentUid, links.add(link));
      count++;
      own(link);
    },
    own,
    remove(link) {
      const links = byAgent.get(link.agentUid);
      if (!links?.delete(link)) return;
      count--;
      if (links.size === 0) byAgent.delete(link.agentUid);
    },
    get count() {
      return count;
    },
    start() {
      admissions.onOwnershipLost((agentUid, epoch) => {
        for (const link of of(agentUid)) if (link.epoch === epoch) link.supersede();
      });
      releases.push(
        bus.subscribe('agents', ({ agentUids }) => refreshNow(agentUids.flatMap(of))),
        bus.subscribe('disconnect', ({ agentUids, reason }) => {
          for (const link of agentUids.flatMap(of)) link.close(reason);
        }),
        clock.every(healthIntervalMs, () => {
          const nowMs = clock.now();
          for (const link of all()) link.checkHealth(nowMs);
        }),
        // What a lost hint left behind.
        repeat(
          clock,
          refreshIntervalMs,
          () => refresh(all()),
          (error) => report.error(error, 'the standing of links could not be read'),
        ),
      );
    },
    async closeAll(timeoutMs) {
      for (const release of releases.splice(0)) release();
      for (const link of all()) link.end(1012, 'The gateway restarts');
      const deadlineMs = clock.now() + timeoutMs;
      while (count > 0 && clock.now() < deadlineMs) await new Promise<void>((resolve) => clock.after(20, resolve));
    },
  };
}
