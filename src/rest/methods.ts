import { AegisError } from '../errors.ts';
import { type ErrorWording, pathOf, type RestApp } from './environment.ts';

/**
 * Answers the methods that the routes of an app do not have: OPTIONS with what they have, any other with
 * METHOD_NOT_ALLOWED. Call it when all routes of the app are there.
 */
export function refuseOtherMethods(app: RestApp, wording: ErrorWording): void {
  for (const [path, methods] of methodsByPath(app)) {
    const allow = [...methods, ...(methods.has('GET') ? ['HEAD'] : []), 'OPTIONS'].join(', ');
    app.all(path, (c) => {
      if (c.req.method === 'OPTIONS') return c.body(null, 204, { allow });
      const refusal = wording.response(new AegisError('METHOD_NOT_ALLOWED'), pathOf(c));
      refusal.headers.set('allow', allow);
      return refusal;
    });
  }
}

/** The methods of each path that the app documents. */
function methodsByPath(app: RestApp): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  for (const definition of app.openAPIRegistry.definitions) {
    if (definition.type !== 'route') continue;
    const path = definition.route.path.replaceAll(/\{(\w+)\}/g, ':$1');
    found.set(path, (found.get(path) ?? new Set()).add(definition.route.method.toUpperCase()));
  }
  return found;
}
