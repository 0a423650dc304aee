import SchemaBuilder from '@pothos/core';
import RelayPlugin from '@pothos/plugin-relay';
import type { ConsumerContext } from './context.ts';
import { encodeNodeId } from './node-ids.ts';
import PermissionsPlugin from './permissions.ts';

/** What a schema in Pothos has to know of our types. */
export interface SchemaTypes {
  Context: ConsumerContext;
  DefaultFieldNullability: false;
  DefaultEdgesNullability: { list: false; items: false };
  DefaultNodeNullability: false;
  Scalars: {
    ID: { Input: string; Output: string };
    DateTime: { Input: Date; Output: Date };
    JSON: { Input: unknown; Output: unknown };
  };
}

export const builder = new SchemaBuilder<SchemaTypes>({
  plugins: [RelayPlugin, PermissionsPlugin],
  defaultFieldNullability: false,
  relay: {
    cursorType: 'String',
    encodeGlobalID: (typeName, id) => encodeNodeId(typeName, String(id)),
    // Ids come in as plain text everywhere, since names and plain UUIDs are taken as well (node-ids.ts).
    nodeQueryOptions: false,
    nodesQueryOptions: false,
    edgesFieldOptions: { nullable: { list: false, items: false } },
    nodeFieldOptions: { nullable: false },
    nodesOnConnection: true,
  },
});

builder.queryType({});
builder.mutationType({});
builder.subscriptionType({
  description:
    '`after` replays what is stored beyond that cursor, then goes on live, without a gap or a repeat between the two.\nWithout it a subscription starts live. A list of labels means every one of them.',
});
