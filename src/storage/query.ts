/**
 * Options in the query of a URL. Their bounds are checked by the backend's own schema.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { decode, string } from "../internal/options.js"

export const text = Schema.optional(Schema.String)

export const number = Schema.optional(
  Schema.transform(string("a whole number", (text) => /^\d+$/.test(text)), Schema.Number, {
    strict: true,
    decode: Number,
    encode: String
  })
)

export const boolean = Schema.optional(
  Schema.transform(string("true or false", (text) => text === "true" || text === "false"), Schema.Boolean, {
    strict: true,
    decode: (text) => text === "true",
    encode: String
  })
)

/** One of some words. */
export const word = <const Words extends readonly [string, ...ReadonlyArray<string>]>(...words: Words) =>
  Schema.optional(Schema.Literal(...words))

const units: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

const sizePattern = /^(\d+) ?([KMG]iB|B)?$/

/** In bytes, or with a unit. */
export const size = Schema.optional(
  Schema.transform(string("a size, for instance 8MiB", (text) => sizePattern.test(text)), Schema.Number, {
    strict: true,
    decode: (text) => {
      const [, digits = "", unit = "B"] = sizePattern.exec(text) ?? []
      return Number(digits) * (units[unit] ?? 1)
    },
    encode: String
  })
)

/** With a unit. */
export const duration = Schema.optional(
  Schema.transform(
    string("a duration, for instance 10 seconds", (text) => Option.isSome(Duration.decodeUnknown(text))),
    Schema.DurationFromSelf,
    {
      strict: true,
      decode: (text) => Option.getOrElse(Duration.decodeUnknown(text), () => Duration.zero),
      encode: (duration) => `${Duration.toMillis(duration)} millis`
    }
  )
)

/** The options of a query, or what is wrong with one. */
export const options = <A, I>(schema: Schema.Schema<A, I>, query: I) => decode("Storage.fromUrl", schema, query)
