const { spawnSync } = require('node:child_process');
const { rmSync } = require('node:fs');
const { setTimeout: pause } = require('node:timers/promises');

// A process of its own that outlives the test which started it for a moment: it ends the processes and removes the mounts and
// folders that the test still had when it ended, be it by SIGKILL. `reaper.ts` is the side that talks to it. CommonJS: a
// module would begin to listen only after what a test said that is gone by then.

/** @typedef {{ process: number, signal: NodeJS.Signals } | { folder: string } | { mount: string }} Leftover */

/** @type {Map<number, Leftover>} */
const leftovers = new Map();

process.on('message', (/** @type {{ id: number, owned: Leftover | null }} */ { id, owned }) => {
  if (owned) leftovers.set(id, owned);
  else leftovers.delete(id);
});

process.on('disconnect', async () => {
  const last = [...leftovers.values()];
  const pids = last.flatMap((leftover) => ('process' in leftover ? [leftover.process] : []));
  for (const leftover of last) if ('process' in leftover) signalTo(leftover.process, leftover.signal);
  for (let looks = 0; looks < 100 && pids.some((pid) => signalTo(pid, 0)); looks++) await pause(100);
  for (const leftover of last) if ('mount' in leftover) spawnSync('umount', ['-l', leftover.mount]);
  for (const leftover of last) if ('folder' in leftover) rmSync(leftover.folder, { recursive: true, force: true });
});

/** @param {number} pid @param {NodeJS.Signals | 0} signal @returns {boolean} whether there was such a process */
function signalTo(pid, signal) {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}
