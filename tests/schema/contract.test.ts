import { readFileSync } from 'node:fs';
import {
  buildSchema as buildFromSdl,
  findBreakingChanges,
  type GraphQLArgument,
  type GraphQLInputField,
  type GraphQLNamedType,
  type GraphQLSchema,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isObjectType,
  isScalarType,
  isSpecifiedScalarType,
  isUnionType,
  printSchema,
} from 'graphql';
import { describe, expect, test } from 'vitest';
import { buildSchema } from '../../src/schema/schema.ts';

const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');
const contract = buildFromSdl(read('../contract/consumer-contract.graphql'));

/**
 * Everything that consumers rely on in a schema that was read from SDL, one line a fact: `Agent.events/kinds: [EventKind!]`.
 * A description that is there is a fact too; where the contract has none, ours is free.
 */
function facts(schema: GraphQLSchema): Set<string> {
  const types = Object.values(schema.getTypeMap()).filter(
    (type) => !type.name.startsWith('__') && !isSpecifiedScalarType(type),
  );
  return new Set(types.flatMap(typeFacts));
}

function typeFacts(type: GraphQLNamedType): string[] {
  const { name } = type;
  const found = [`${type.astNode?.kind} ${name}`, ...description(name, type)];
  if (isScalarType(type) && type.specifiedByURL) found.push(`${name} @specifiedBy ${type.specifiedByURL}`);
  if (isEnumType(type))
    found.push(
      ...type.getValues().flatMap((value) => [`${name}.${value.name}`, ...description(`${name}.${value.name}`, value)]),
    );
  if (isUnionType(type)) found.push(...type.getTypes().map((member) => `${name} | ${member.name}`));
  if (isInputObjectType(type))
    found.push(...Object.values(type.getFields()).flatMap((field) => inputFacts(`${name}.`, field)));
  if (isObjectType(type) || isInterfaceType(type)) {
    found.push(...type.getInterfaces().map((parent) => `${name} implements ${parent.name}`));
    for (const field of Object.values(type.getFields())) {
      const place = `${name}.${field.name}`;
      found.push(`${place}: ${field.type}`, ...description(place, field));
      found.push(...field.args.flatMap((argument) => inputFacts(`${place}/`, argument)));
    }
  }
  return found;
}

function inputFacts(prefix: string, input: GraphQLArgument | GraphQLInputField): string[] {
  const place = `${prefix}${input.name}`;
  return [`${place}: ${input.type}`, `${place} = ${JSON.stringify(input.defaultValue)}`, ...description(place, input)];
}

function description(place: string, element: { description?: string | null | undefined }): string[] {
  return element.description ? [`${place} "${element.description}"`] : [];
}

/** What consumers see of the schema: printed and read again, so that defaults are in the terms of the SDL. */
const ours = buildFromSdl(printSchema(buildSchema()));

describe('the schema', () => {
  test('breaks nothing of the contract', () => {
    expect(findBreakingChanges(contract, ours)).toEqual([]);
  });

  test('has every type, field, argument, default, value, member and description of the contract, unchanged', () => {
    const present = facts(ours);
    expect([...facts(contract)].filter((fact) => !present.has(fact))).toEqual([]);
  });

  test('keeps the order of severities, from the least to the worst', () => {
    const names = (schema: GraphQLSchema) => {
      const severity = schema.getType('Severity');
      return isEnumType(severity) ? severity.getValues().map((value) => value.name) : null;
    };
    expect(names(ours)).toEqual(names(contract));
  });

  test('is what `schema.graphql` says', () => {
    expect(read('../../schema.graphql')).toBe(`${printSchema(buildSchema())}\n`);
  });
});
