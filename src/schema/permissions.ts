import SchemaBuilder, {
  BasePlugin,
  type FieldNullability,
  type InputFieldMap,
  type PothosOutputFieldConfig,
  type PothosTypeConfig,
  type SchemaTypes,
  type TypeParam,
} from '@pothos/core';
import {
  defaultFieldResolver,
  type GraphQLField,
  type GraphQLFieldResolver,
  type GraphQLSchema,
  getNamedType,
  isObjectType,
} from 'graphql';
import { isNeed, type Need, requirePermission } from '../access/consumer.ts';
import type { ConsumerContext } from './context.ts';

/**
 * What each field needs is declared beside it. A query, a mutation or a subscription has to say it, or it does not compile.
 * Any other field needs what the type that it gives needs, unless it says otherwise: what gives events needs `events:read`
 * wherever it stands. Whoever lacks it is refused before anything is resolved.
 */

const pluginName = 'permissions';
export default pluginName;

interface Needing {
  /** What a consumer must be permitted. */
  needs: Need;
}

declare global {
  export namespace PothosSchemaTypes {
    export interface Plugins<Types extends SchemaTypes> {
      [pluginName]: PermissionsPlugin<Types>;
    }
    export interface BaseTypeOptions<Types extends SchemaTypes = SchemaTypes> extends Partial<Needing> {}
    export interface ObjectFieldOptions<
      Types extends SchemaTypes,
      ParentShape,
      Type extends TypeParam<Types>,
      Nullable extends FieldNullability<Type>,
      Args extends InputFieldMap,
      ResolveReturnShape,
    > extends Partial<Needing> {}
    export interface QueryFieldOptions<
      Types extends SchemaTypes,
      Type extends TypeParam<Types>,
      Nullable extends FieldNullability<Type>,
      Args extends InputFieldMap,
      ResolveReturnShape,
    > extends Needing {}
    export interface MutationFieldOptions<
      Types extends SchemaTypes,
      Type extends TypeParam<Types>,
      Nullable extends FieldNullability<Type>,
      Args extends InputFieldMap,
      ResolveReturnShape,
    > extends Needing {}
    export interface SubscriptionFieldOptions<
      Types extends SchemaTypes,
      Type extends TypeParam<Types>,
      Nullable extends FieldNullability<Type>,
      Args extends InputFieldMap,
      ResolveShape,
      ResolveReturnShape,
    > extends Needing {}
  }
}

class PermissionsPlugin<Types extends SchemaTypes> extends BasePlugin<Types> {
  override onTypeConfig(config: PothosTypeConfig): PothosTypeConfig {
    return { ...config, extensions: { ...config.extensions, needs: needsIn(config.pothosOptions) } };
  }

  override onOutputFieldConfig(config: PothosOutputFieldConfig<Types>): PothosOutputFieldConfig<Types> {
    return { ...config, extensions: { ...config.extensions, needs: needsIn(config.pothosOptions) } };
  }

  override afterBuild(schema: GraphQLSchema): GraphQLSchema {
    for (const type of Object.values(schema.getTypeMap()))
      if (isObjectType(type)) for (const field of Object.values(type.getFields())) guard(field);
    return schema;
  }
}

SchemaBuilder.registerPlugin(pluginName, PermissionsPlugin);

/** What a field needs; null where nothing beyond what leads to it. */
export function needOfField(field: GraphQLField<unknown, ConsumerContext>): Need | null {
  return needsIn(field.extensions) ?? needsIn(getNamedType(field.type).extensions);
}

/** What objects of a type need. */
export function needOfType(schema: GraphQLSchema, typeName: string): Need | null {
  return needsIn(schema.getType(typeName)?.extensions);
}

function needsIn(options: object | undefined): Need | null {
  return options && 'needs' in options && isNeed(options.needs) ? options.needs : null;
}

function guard(field: GraphQLField<unknown, ConsumerContext>): void {
  const need = needOfField(field);
  if (need === null || need === 'authenticated') return;
  const guarded =
    (resolve: GraphQLFieldResolver<unknown, ConsumerContext>): GraphQLFieldResolver<unknown, ConsumerContext> =>
    (parent, args, context, info) => {
      requirePermission(context.consumer, need);
      return resolve(parent, args, context, info);
    };
  if (field.subscribe) field.subscribe = guarded(field.subscribe);
  else field.resolve = guarded(field.resolve ?? defaultFieldResolver);
}
