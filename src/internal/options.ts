/**
 * The options of a module, decoded by one schema: defaults filled in, sizes as numbers of bytes, durations as milliseconds,
 * and what is not allowed as `InvalidOptions` with the option's name, its value and what is allowed.
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as ParseResult from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as AST from "effect/SchemaAST"
import * as ObjectKey from "../ObjectKey.js"
import * as RetryPolicy from "../RetryPolicy.js"
import type { Service } from "../Storage.js"
import { InvalidOptions } from "../StorageError.js"

/** Decodes the options of `module`, or fails with the first that is not allowed. */
export const decode = <A, I>(
  module: string,
  schema: Schema.Schema<A, I>,
  options: I
): Effect.Effect<A, InvalidOptions> =>
  Either.mapLeft(Schema.decodeUnknownEither(schema, { onExcessProperty: "error" })(options), ({ issue }) => {
    const { path, problem } = firstProblem(issue)
    const option = path.map(String).join(".")
    return new InvalidOptions({ module, option, reason: `${option === "" ? "options" : option} ${problem}` })
  })

interface Problem {
  readonly path: ReadonlyArray<PropertyKey>
  readonly problem: string
}

/**
 * The first problem, at the innermost option, in the words of the outermost schema that has any. The formatters of Effect would
 * show secrets.
 */
const firstProblem = (issue: ParseResult.ParseIssue, path: ReadonlyArray<PropertyKey> = []): Problem => {
  switch (issue._tag) {
    case "Pointer":
      return firstProblem(issue.issue, [...path, ...Arr.ensure(issue.path)])
    case "Missing":
      return { path, problem: "is required" }
    case "Unexpected":
      return { path, problem: "is not an option of this module; remove it or correct its name" }
  }
  if (issue._tag === "Refinement" && issue.kind === "From") {
    const inner = firstProblem(issue.issue, path)
    if (inner.path.length > path.length) return inner
  }
  const message = Option.getOrUndefined(AST.getMessageAnnotation(issue.ast))?.(issue)
  if (typeof message === "string") return { path, problem: message }
  switch (issue._tag) {
    case "Composite":
      return firstProblem("_tag" in issue.issues ? issue.issues : issue.issues[0], path)
    case "Refinement":
    case "Transformation":
      return firstProblem(issue.issue, path)
    case "Type":
    case "Forbidden":
      return { path, problem: problemOf(issue.ast) }
  }
}

const problemOf = (ast: AST.AST): string =>
  AST.isTupleType(ast) ? "must be an array" : AST.isTypeLiteral(ast) ? "must be an object" : "is not valid"

/** The same schema, whose message is what is allowed, and the value unless that may be a secret. */
export const must = <A, I, R>(
  schema: Schema.Schema<A, I, R>,
  be: string,
  show: (value: unknown) => string | undefined = String
): Schema.Schema<A, I, R> =>
  schema.annotations({
    message: ({ actual }) => {
      const shown = show(actual)
      return `must be ${be}${shown === undefined ? "" : ` (got ${shown})`}`
    }
  })

/** Shows a value as it is written in a program. */
export const show = (value: unknown): string =>
  typeof value === "string" ? JSON.stringify(value) : Redacted.isRedacted(value) ? "a Redacted value" : String(value)

/** Shows nothing of a value that may be a secret. */
export const hidden = (): undefined => undefined

const withoutSlash = (key: string): string => key.replace(/\/$/, "")

/** Text that passes a test. */
export const string = (be = "a string", isAllowed: (value: string) => boolean = () => true): Schema.Schema<string> =>
  must(Schema.String.pipe(Schema.filter(isAllowed)), be, show)

export const boolean: Schema.Schema<boolean> = must(Schema.Boolean, "true or false", show)

/** One of some strings. */
export const oneOf = <const Values extends readonly [string, ...ReadonlyArray<string>]>(
  ...values: Values
): Schema.Schema<Values[number]> =>
  must(Schema.Literal(...values), values.map((value) => JSON.stringify(value)).join(" or "), show)

/** A whole number. */
export const count = ({ max = Infinity, min = 1 } = {}): Schema.Schema<number> =>
  must(
    Schema.Number.pipe(Schema.filter((value) => Number.isSafeInteger(value) && value >= min && value <= max)),
    max === Infinity ? `a whole number of at least ${min}` : `a whole number from ${min} to ${max}`,
    show
  )

/** A number that passes a test. */
export const number = (be: string, isAllowed: (value: number) => boolean): Schema.Schema<number> =>
  must(Schema.Number.pipe(Schema.filter(isAllowed)), be, show)

/** A number above zero. */
export const rate: Schema.Schema<number> = number("a number greater than zero", (value) => value > 0)

/** What one of two schemas allows. */
export const either = <A, I, A2, I2>(
  one: Schema.Schema<A, I>,
  other: Schema.Schema<A2, I2>,
  be: string
): Schema.Schema<A | A2, I | I2> => must(Schema.Union(one, other), be, show)

/** A size in bytes, from `min` to `max`; `range` is how the message shows these, for instance `5 MiB to 2 GiB`. */
export const size = (
  { max = Number.MAX_SAFE_INTEGER, min = 1, range }: {
    readonly min?: number
    readonly max?: number
    readonly range?: string
  } = {}
): Schema.Schema<number, FileSystem.SizeInput> =>
  must(
    Schema.transform(Schema.Union(Schema.Number, Schema.BigIntFromSelf), Schema.Number, {
      strict: true,
      decode: Number,
      encode: (value) => value
    }).pipe(Schema.filter((value) => Number.isSafeInteger(value) && value >= min && value <= max)),
    range === undefined ? `a whole number of bytes of at least ${min}` : `a whole number of bytes from ${range}`,
    (value) => typeof value === "number" || typeof value === "bigint" ? `${value} bytes` : show(value)
  )

/** A timer cannot wait longer, in milliseconds. */
const longestTimer = 2 ** 31 - 1

/**
 * A duration in milliseconds, from `min`, by default any above zero, to `max`, by default the longest that a timer can wait:
 * 24 days.
 */
export const duration = ({ max = longestTimer, min = 0 } = {}): Schema.Schema<number, Duration.DurationInput> =>
  must(
    Schema.transform(durationInput, Schema.Number, { strict: true, decode: Duration.toMillis, encode: Duration.millis })
      .pipe(Schema.filter((value) => value > 0 && value >= min && value <= max)),
    `${min === 0 ? "greater than zero" : `at least ${Duration.format(min)}`}${
      max === Infinity ? "" : ` and at most ${Duration.format(max)}`
    }`,
    (value) =>
      // As it stands in a program: Effect would show a negative number as 0.
      typeof value === "number"
        ? String(value)
        : Option.match(Duration.decodeUnknown(value), { onNone: () => show(value), onSome: Duration.format })
  )

const durationInput = Schema.declare((value): value is Duration.DurationInput =>
  Option.isSome(Duration.decodeUnknown(value))
)

/** A secret. */
export const redacted: Schema.Schema<Redacted.Redacted> = must(
  Schema.declare((value): value is Redacted.Redacted =>
    Redacted.isRedacted(value) && typeof Redacted.value(value) === "string"
  ),
  "a Redacted string, from Redacted.make",
  hidden
)

/** A retry policy, by default `RetryPolicy.default`. */
export const retry = Schema.optionalWith(
  must(Schema.declare((value): value is RetryPolicy.RetryPolicy => Schedule.isSchedule(value)), "a Schedule", show),
  { default: () => RetryPolicy.default }
)

/** The key of a folder, with or without a slash at its end. */
export const folder: Schema.Schema<string> = must(
  Schema.transform(Schema.String, Schema.String, {
    strict: true,
    decode: withoutSlash,
    encode: (key) => key
  }).pipe(Schema.filter((key) => ObjectKey.problem(key) === undefined)),
  "a key, such as \"models/bert\"",
  (value) => {
    const problem = typeof value === "string" ? ObjectKey.problem(withoutSlash(value)) : undefined
    return problem === undefined ? show(value) : `${show(value)}: ${problem}`
  }
)

/** A storage. */
export const storage: Schema.Schema<Service> = must(
  Schema.declare((value): value is Service => Predicate.hasProperty(value, "backend")),
  "a storage"
)

/** A function. */
export const callback = <F extends (...args: Array<never>) => unknown>(): Schema.Schema<F> =>
  must(Schema.declare((value): value is F => typeof value === "function"), "a function", show)
