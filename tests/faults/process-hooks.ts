/**
 * Has a process do what no process is asked to outside of tests, for Node's command line. Its clock can be made wrong: whoever asks
 * what time it is is told another one, as by a machine whose clock somebody sets; what time passes meanwhile, and timers, are as
 * they were. And it can be told to collect garbage, so that what it holds can be told from what it has not thrown away yet.
 */
export const hookArguments: readonly string[] = [
  '--expose-gc',
  '--import',
  `data:text/javascript,${encodeURIComponent(`
    const hourMs = 3_600_000;
    let aheadMs = Number(process.env.CLOCK_HOURS_AHEAD ?? 0) * hourMs;
    const RightDate = Date;
    const rightNow = Date.now;
    Date.now = () => rightNow() + aheadMs;
    globalThis.Date = new Proxy(RightDate, {
      apply: () => new RightDate(Date.now()).toString(),
      construct: (target, given, made) => Reflect.construct(target, given.length > 0 ? given : [Date.now()], made),
    });
    process.on('SIGWINCH', () => (aheadMs += hourMs));
    process.on('SIGURG', () => (aheadMs -= hourMs));
    process.on('SIGIO', () => gc());
  `)}`,
];

/** What such a process starts with so that its clock is wrong from the beginning. */
export const startedAhead = (hours: 1 | -1) => ({ CLOCK_HOURS_AHEAD: String(hours) });

/** What sets the clock of a running one by an hour. */
export const setAhead = (hours: 1 | -1): NodeJS.Signals => (hours === 1 ? 'SIGWINCH' : 'SIGURG');

/** What has it collect its garbage. */
export const collectGarbage: NodeJS.Signals = 'SIGIO';
