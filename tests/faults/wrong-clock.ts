/**
 * Makes the clock of a process wrong, for Node's `--import`: whoever asks what time it is is told another one, as by a machine
 * whose clock somebody sets. What time passes meanwhile, and timers, are as they were.
 */
export const wrongClockArguments: readonly string[] = [
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
  `)}`,
];

/** What such a process starts with so that its clock is wrong from the beginning. */
export const startedAhead = (hours: 1 | -1) => ({ CLOCK_HOURS_AHEAD: String(hours) });

/** What sets the clock of a running one by an hour. */
export const setAhead = (hours: 1 | -1): NodeJS.Signals => (hours === 1 ? 'SIGWINCH' : 'SIGURG');
