import {
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  getOperationAST,
  Kind,
  OperationTypeNode,
  type SelectionSetNode,
} from 'graphql';
import { AegisError } from '../errors.ts';

/** What a document may be made of, whatever its types. Consumers of a gateway like this need a tenth of it. */
export const maxAliases = 30;
export const maxDirectives = 30;
/** Fields that stand in one selection more than once: validation compares each with each. */
export const maxRepeatedFields = 30;
/** As deep as the introspection query of GraphiQL and of every client is; other fields may go as deep as is configured. */
export const maxIntrospectionDepth = 15;

/**
 * Checks what can be told of a document before it is validated, so that validation itself has an end to its work.
 * Each definition is walked once, however often its fragments are spread. Throws QUERY_TOO_COMPLEX.
 */
export function checkDocument(document: DocumentNode, maxDepth: number): void {
  const counts = { aliases: 0, directives: 0, repeatedFields: 0 };
  const fragments = fragmentsOf(document);
  const depths = new Map<string, number>();

  /** Levels of fields below, and counts on the way. `shown`: what the answer has there already, by type condition. */
  function depthOf({ selections }: SelectionSetNode, shown = new Set<string>(), type = ''): number {
    let depth = 0;
    for (const selection of selections) {
      counts.directives += selection.directives?.length ?? 0;
      if (selection.kind === Kind.FIELD) {
        count(`${type}.${selection.alias?.value ?? selection.name.value}`, selection, shown);
        depth = Math.max(depth, depthOfField(selection));
      } else if (selection.kind === Kind.FRAGMENT_SPREAD) {
        depth = Math.max(depth, depthOfFragment(selection.name.value));
      } else {
        depth = Math.max(depth, depthOf(selection.selectionSet, shown, selection.typeCondition?.name.value ?? type));
      }
    }
    return depth;
  }

  function count(key: string, { alias }: FieldNode, shown: Set<string>): void {
    if (alias) counts.aliases++;
    if (shown.has(key)) counts.repeatedFields++;
    shown.add(key);
  }

  function depthOfField({ name, selectionSet }: FieldNode): number {
    const depth = 1 + (selectionSet ? depthOf(selectionSet) : 0);
    return name.value.startsWith('__') && depth <= maxIntrospectionDepth ? 1 : depth;
  }

  /** A fragment that spreads itself counts as nothing where it does; validation refuses it. */
  function depthOfFragment(name: string): number {
    const known = depths.get(name);
    if (known !== undefined) return known;
    depths.set(name, 0);
    const fragment = fragments.get(name);
    const depth = fragment ? depthOf(fragment.selectionSet) : 0;
    depths.set(name, depth);
    return depth;
  }

  let depth = 0;
  for (const definition of document.definitions) {
    // Counted, also where nothing spreads it; its depth is that of the operations that do.
    if (definition.kind === Kind.FRAGMENT_DEFINITION) depthOfFragment(definition.name.value);
    if (definition.kind === Kind.OPERATION_DEFINITION) depth = Math.max(depth, depthOf(definition.selectionSet));
    if ('directives' in definition) counts.directives += definition.directives?.length ?? 0;
  }
  within('depth', depth, maxDepth);
  within('number of aliases', counts.aliases, maxAliases);
  within('number of directives', counts.directives, maxDirectives);
  within('number of repeated fields', counts.repeatedFields, maxRepeatedFields);
}

/** Throws QUERY_TOO_COMPLEX, with the limit and the value, where it is beyond. */
export function within(what: string, value: number, limit: number): void {
  if (value > limit)
    throw new AegisError('QUERY_TOO_COMPLEX', `The document has a ${what} of ${value}; the limit is ${limit}`);
}

export function fragmentsOf(document: DocumentNode): ReadonlyMap<string, FragmentDefinitionNode> {
  return new Map(
    document.definitions.flatMap((definition) =>
      definition.kind === Kind.FRAGMENT_DEFINITION ? [[definition.name.value, definition]] : [],
    ),
  );
}

/**
 * How many mutations an operation runs: a field at its root each, under whatever alias. Each fragment is walked once. Zero where
 * it is no mutation, or there is no such operation.
 */
export function mutationsIn(document: DocumentNode, operationName: string | null | undefined): number {
  const operation = getOperationAST(document, operationName);
  if (operation?.operation !== OperationTypeNode.MUTATION) return 0;
  const fragments = fragmentsOf(document);
  const fields = new Set<string>();
  const walked = new Set<string>();

  function walk({ selections }: SelectionSetNode): void {
    for (const selection of selections) {
      if (selection.kind === Kind.FIELD) fields.add(selection.alias?.value ?? selection.name.value);
      else if (selection.kind === Kind.INLINE_FRAGMENT) walk(selection.selectionSet);
      else if (!walked.has(selection.name.value)) {
        walked.add(selection.name.value);
        const fragment = fragments.get(selection.name.value);
        if (fragment) walk(fragment.selectionSet);
      }
    }
  }

  walk(operation.selectionSet);
  return fields.size;
}
