import { spawnSync } from 'node:child_process';

// Asks the registry for known faults of what the gateway runs with, and fails where one is high or critical. A registry that
// takes no such question, or none that can be reached, is told and no failure: it says nothing of this tree.

const { stdout, error } = spawnSync('npm', ['audit', '--omit=dev', '--json'], { encoding: 'utf8' });
const report = parsed(stdout);
const counts = report?.metadata?.vulnerabilities;

if (!counts) {
  console.log(`npm audit was not run: ${error?.message ?? report?.message ?? 'no report came back'}`);
} else {
  const grave = counts.high + counts.critical;
  console.log(`npm audit: ${counts.total} known faults, ${grave} of them high or critical`);
  for (const { name, severity, range } of Object.values(report.vulnerabilities))
    console.log(`  ${severity}  ${name} ${range}`);
  process.exitCode = grave > 0 ? 1 : 0;
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
