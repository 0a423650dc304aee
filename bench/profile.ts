import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { projectRoot } from './processes.ts';

// Where the time of a CPU profile went: `npx tsx bench/profile.ts FILE.cpuprofile`. Time of one's own, not of what one calls;
// of the time that the thread was at work.

const profile = z.object({
  nodes: z.array(
    z.object({ id: z.int(), callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.int() }) }),
  ),
  samples: z.array(z.int()),
  timeDeltas: z.array(z.number()),
});
type CallFrame = z.infer<typeof profile>['nodes'][number]['callFrame'];

const rows = 20;

function report(file: string): string {
  const { nodes, samples, timeDeltas } = profile.parse(JSON.parse(readFileSync(file, 'utf8')));
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const places = new Map<string, number>();
  const functions = new Map<string, number>();
  let atWork = 0;
  for (const [index, id] of samples.entries()) {
    const frame = frames.get(id);
    const spent = timeDeltas[index] ?? 0;
    if (!frame || frame.functionName === '(idle)') continue;
    const place = placeOf(frame);
    const name = frame.url ? `${frame.functionName || '(anonymous)'}  ${place}:${frame.lineNumber + 1}` : place;
    places.set(place, (places.get(place) ?? 0) + spent);
    functions.set(name, (functions.get(name) ?? 0) + spent);
    atWork += spent;
  }
  const shares = (spent: ReadonlyMap<string, number>) =>
    [...spent]
      .sort(([, left], [, right]) => right - left)
      .slice(0, rows)
      .map(([name, time]) => `${((100 * time) / atWork).toFixed(1).padStart(6)} %  ${name}`)
      .join('\n');
  return `At work for ${(atWork / 1_000_000).toFixed(1)} s.\n\nBy place:\n${shares(places)}\n\nBy function:\n${shares(functions)}\n`;
}

/** A package, a file of ours or of Node's, or what has no file: the engine and native code. */
function placeOf({ url, functionName }: CallFrame): string {
  if (url === '') return functionName.startsWith('(') ? functionName : `native ${functionName}`;
  if (!url.startsWith('file:')) return url;
  const path = fileURLToPath(url);
  const [, name] = path.match(/.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/) ?? [];
  return name ?? relative(projectRoot, path);
}

const [file] = process.argv.slice(2);
if (file) console.log(report(file));
else {
  console.error('Usage: npx tsx bench/profile.ts FILE.cpuprofile');
  process.exitCode = 2;
}
