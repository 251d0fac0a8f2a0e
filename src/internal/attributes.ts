/**
 * Attributes as JSON.
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

// A `Schema.Record` would lose the name `__proto__`.
const metadata = Schema.declare(
  (value): value is Readonly<Record<string, string>> =>
    Predicate.isReadonlyRecord(value) && Object.values(value).every(Predicate.isString),
  { jsonSchema: { type: "object", additionalProperties: { type: "string" } } }
)

export const attributesSchema = Schema.Struct({
  contentType: Schema.optional(Schema.String),
  cacheControl: Schema.optional(Schema.String),
  contentDisposition: Schema.optional(Schema.String),
  contentEncoding: Schema.optional(Schema.String),
  contentLanguage: Schema.optional(Schema.String),
  metadata: Schema.optional(metadata)
})
