import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { agentRefOf, decodeNodeId, encodeNodeId, idOf } from '../../src/schema/node-ids.ts';

const uuid = '3b241101-e2bb-4255-8caf-4136c566a962';

describe('node ids', () => {
  test('name what they were made of', () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^[A-Za-z]{1,20}$/),
        fc.string({ unit: 'binary', minLength: 1 }),
        (typeName, id) => {
          expect(decodeNodeId(encodeNodeId(typeName, id))).toEqual({ typeName, id });
        },
      ),
    );
  });

  test('are safe in URLs', () => {
    expect(encodeNodeId('Agent', uuid)).toMatch(/^[\w-]+$/);
  });

  test('are never taken out of what they are not, and nothing makes them throw', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const decoded = decodeNodeId(text);
        if (decoded) expect(encodeNodeId(decoded.typeName, decoded.id)).toBe(text);
      }),
    );
  });

  test('have one spelling: no padding, no aliases of the last character', () => {
    const id = encodeNodeId('Agent', 'x');
    expect(decodeNodeId(`${id}=`)).toBeNull();
    expect(decodeNodeId(`${id.slice(0, -1)}${String.fromCharCode(id.charCodeAt(id.length - 1) + 1)}`)).not.toEqual({
      typeName: 'Agent',
      id: 'x',
    });
  });
});

describe('where an id is asked for', () => {
  test('the plain id and the node id of the type will do, that of another type will not', () => {
    expect(idOf('Message', uuid)).toBe(uuid);
    expect(idOf('Message', encodeNodeId('Message', uuid))).toBe(uuid);
    expect(idOf('Message', encodeNodeId('Broadcast', uuid))).toBeNull();
  });

  test('an agent may be named by name, uid or node id', () => {
    expect(agentRefOf('web-1.example.net')).toBe('web-1.example.net');
    expect(agentRefOf(uuid)).toBe(uuid);
    expect(agentRefOf(encodeNodeId('Agent', uuid))).toBe(uuid);
  });

  test('a name that happens to decode to something else stays a name', () => {
    const name = encodeNodeId('Agent', 'no-uuid');
    expect(agentRefOf(name)).toBe(name);
    expect(agentRefOf(encodeNodeId('Message', uuid))).toBe(encodeNodeId('Message', uuid));
  });
});
