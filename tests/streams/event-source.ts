import { type IncomingMessage, request } from 'node:http';

/** One dispatched event of a stream of Server-Sent Events. */
export interface SentEvent {
  /** The last event id when it was dispatched. */
  readonly id: string;
  readonly type: string;
  readonly data: string;
}

/** A reader that keeps to "Interpreting an event stream" of the HTML standard, as any EventSource does. */
export interface EventSourceReader extends AsyncIterableIterator<SentEvent> {
  readonly status: number;
  /** What a browser sends as `Last-Event-ID` when it comes back; '' before there was any. */
  readonly lastEventId: string;
  readonly comments: number;
  /** Why the stream is over; null while it is not. */
  readonly over: 'ended' | 'cut' | null;
  /** The next event's data as JSON. Throws where the stream is over. */
  json(): Promise<unknown>;
  /** Stops reading, without closing anything. */
  pause(): void;
  resume(): void;
  /** Drops the connection without a word. */
  cut(): void;
}

export interface EventSourceOptions {
  readonly url: string;
  readonly token: string;
  readonly query: string;
  readonly variables?: Readonly<Record<string, unknown>>;
  readonly lastEventId?: string;
  /** As a browser's EventSource does it, instead of posting. */
  readonly method?: 'GET' | 'POST';
  readonly accept?: string;
}

/** Resolves when the response has begun. */
export async function openEventSource(options: EventSourceOptions): Promise<EventSourceReader> {
  const { token, query, variables = {}, lastEventId, method = 'POST', accept = 'text/event-stream' } = options;
  const url = new URL('/graphql', options.url);
  if (method === 'GET') {
    url.searchParams.set('query', query);
    url.searchParams.set('variables', JSON.stringify(variables));
  }
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const asked = request(url, {
      method,
      agent: false,
      headers: {
        accept,
        authorization: `Bearer ${token}`,
        ...(method === 'POST' ? { 'content-type': 'application/json' } : {}),
        ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
      },
    });
    asked.on('response', resolve);
    asked.on('error', reject);
    asked.end(method === 'POST' ? JSON.stringify({ query, variables }) : undefined);
  });
  return readEvents(response);
}

function readEvents(response: IncomingMessage): EventSourceReader {
  const events: SentEvent[] = [];
  let rest = '';
  let lastEventId = '';
  let type = '';
  let data: string[] = [];
  let comments = 0;
  let over: 'ended' | 'cut' | null = null;
  let wake = () => {};

  function takeLine(line: string): void {
    if (line === '') dispatch();
    if (line.startsWith(':')) comments++;
    const [, field = '', value = ''] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (field === 'id' && !value.includes('\0')) lastEventId = value;
    if (field === 'event') type = value;
    if (field === 'data') data.push(value);
  }

  function dispatch(): void {
    if (data.length > 0) events.push({ id: lastEventId, type: type || 'message', data: data.join('\n') });
    type = '';
    data = [];
  }

  function end(how: 'ended' | 'cut'): void {
    over ??= how;
    wake();
  }

  response.setEncoding('utf8');
  response.on('data', (chunk: string) => {
    const lines = (rest + chunk).split(/\r\n|\r|\n/);
    rest = lines.pop() ?? '';
    for (const line of lines) takeLine(line);
    wake();
  });
  response.on('end', () => end('ended'));
  response.on('error', () => end('cut'));
  response.on('close', () => end('cut'));

  const reader: EventSourceReader = {
    status: response.statusCode ?? 0,
    get lastEventId() {
      return lastEventId;
    },
    get comments() {
      return comments;
    },
    get over() {
      return over;
    },
    async next() {
      for (;;) {
        const event = events.shift();
        if (event) return { done: false, value: event };
        if (over) return { done: true, value: undefined };
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    async return() {
      reader.cut();
      return { done: true, value: undefined };
    },
    async json() {
      const { done, value } = await reader.next();
      if (done) throw new Error(`the stream is over: ${over}`);
      return JSON.parse(value.data);
    },
    pause: () => response.pause(),
    resume: () => response.resume(),
    cut: () => response.destroy(),
    [Symbol.asyncIterator]: () => reader,
  };
  return reader;
}
