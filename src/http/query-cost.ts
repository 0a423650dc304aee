import {
  type DocumentNode,
  type FieldNode,
  type GraphQLField,
  type GraphQLNamedType,
  type GraphQLSchema,
  getNamedType,
  getNullableType,
  getOperationAST,
  isInterfaceType,
  isListType,
  isObjectType,
  Kind,
  type SelectionSetNode,
} from 'graphql';
import { defaultPageSize, maxPageSize } from '../paging.ts';
import { fragmentsOf } from './document-limits.ts';

type Variables = Readonly<Record<string, unknown>>;

/**
 * Objects that a selection adds to an answer at most: `own` once, and `perItem` for each entry of the page that the
 * selection is part of, whose size only the field around it knows.
 */
interface Cost {
  readonly own: number;
  readonly perItem: number;
}

const nothing: Cost = { own: 0, perItem: 0 };
/** Beyond this no number is exact any more, and fragments that double each other soon are. */
const priceless = Number.MAX_SAFE_INTEGER;

/**
 * The objects that the answer to a valid operation may hold at most: one for each field that gives an object, times the pages that it is
 * in. A page counts as what `first` or `last` ask for; every other list, and a page that is asked for without a size, as a
 * page of the default size. Introspection is free. Zero where there is no such operation.
 *
 * Each fragment is priced once, so fragments of fragments cost no more to price than they are long.
 */
export function costOf(
  schema: GraphQLSchema,
  document: DocumentNode,
  operationName: string | null | undefined,
  given: Variables | null | undefined,
): number {
  const operation = getOperationAST(document, operationName);
  const root = operation && schema.getRootType(operation.operation);
  if (!operation || !root) return 0;
  const fragments = fragmentsOf(document);
  const costs = new Map<string, Cost>();
  const variables: Variables = {
    ...Object.fromEntries(
      (operation.variableDefinitions ?? []).map(({ variable, defaultValue }) => [
        variable.name.value,
        defaultValue?.kind === Kind.INT ? Number(defaultValue.value) : null,
      ]),
    ),
    ...given,
  };

  function costOfSelections({ selections }: SelectionSetNode, type: GraphQLNamedType | undefined): Cost {
    return selections.reduce((sum, selection) => {
      if (selection.kind === Kind.FIELD) return add(sum, costOfField(selection, type));
      if (selection.kind === Kind.FRAGMENT_SPREAD) return add(sum, costOfFragment(selection.name.value));
      const condition = selection.typeCondition;
      return add(
        sum,
        costOfSelections(selection.selectionSet, condition ? schema.getType(condition.name.value) : type),
      );
    }, nothing);
  }

  function costOfFragment(name: string): Cost {
    const known = costs.get(name);
    if (known) return known;
    const fragment = fragments.get(name);
    const cost = fragment
      ? costOfSelections(fragment.selectionSet, schema.getType(fragment.typeCondition.name.value))
      : nothing;
    costs.set(name, cost);
    return cost;
  }

  function costOfField(node: FieldNode, type: GraphQLNamedType | undefined): Cost {
    const field = isObjectType(type) || isInterfaceType(type) ? type.getFields()[node.name.value] : undefined;
    if (!field || !node.selectionSet) return nothing;
    const { own, perItem } = costOfSelections(node.selectionSet, getNamedType(field.type));
    if (!isListType(getNullableType(field.type)))
      return { own: bounded(1 + own + perItem * pageSizeOf(node, field, variables)), perItem: 0 };
    return { own: 0, perItem: bounded(1 + own + perItem * defaultPageSize) };
  }

  const { own, perItem } = costOfSelections(operation.selectionSet, root);
  return bounded(own + perItem * defaultPageSize);
}

function add(one: Cost, other: Cost): Cost {
  return { own: bounded(one.own + other.own), perItem: bounded(one.perItem + other.perItem) };
}

function bounded(count: number): number {
  return Math.min(count, priceless);
}

/** What is no size is refused when it is resolved or, as a variable, before that: it need only not be cheap. */
function pageSizeOf(node: FieldNode, field: GraphQLField<unknown, unknown>, variables: Variables): number {
  if (!field.args.some(({ name }) => name === 'first')) return defaultPageSize;
  const sizes = (node.arguments ?? []).flatMap(({ name, value }) => {
    if (name.value !== 'first' && name.value !== 'last') return [];
    const size =
      value.kind === Kind.VARIABLE ? variables[value.name.value] : value.kind === Kind.INT ? Number(value.value) : null;
    if (size === null || size === undefined) return [];
    return [typeof size === 'number' && size >= 0 ? Math.min(size, maxPageSize) : maxPageSize];
  });
  return sizes.length > 0 ? Math.max(...sizes) : defaultPageSize;
}
