/**
 * The arguments of a command, completed: an option that is not given is taken from the environment (`WEIGHTS_DRY_RUN` for
 * `--dry-run`), otherwise from a file of JSON, at `WEIGHTS_CONFIG` or `~/.config/surfing-weights.json`:
 *
 * ```json
 * { "quiet": true, "sync": { "exclude": ["*.bin"] } }
 * ```
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as fs from "node:fs"
import { homedir } from "node:os"
import * as path from "node:path"
import type { Definition } from "./define.js"
import { UsageError } from "./failures.js"

type Environment = Readonly<Record<string, string | undefined>>

/** The arguments as the parser takes them, or what is wrong with them. */
export const complete = (
  args: ReadonlyArray<string>,
  definitions: ReadonlyArray<Definition>,
  environment: Environment
): Effect.Effect<ReadonlyArray<string>, UsageError> =>
  Effect.gen(function*() {
    // Options may stand before the command, too.
    const place = args.findIndex((arg) => !arg.startsWith("-"))
    const name = args[place]
    const rest = args.filter((_, i) => i !== place)
    const definition = definitions.find((definition) => definition.name === name)
    if (name === undefined || definition === undefined) return args
    const given = split(rest)
    yield* checkNames(definition, given)
    const file = yield* readFile(environment)
    return [name, ...yield* defaults(definition, new Set(given), environment, file), ...optionsFirst(definition, given)]
  })

/** The parser looks for no options after the argument `-`. */
const optionsFirst = ({ options }: Definition, args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = args.indexOf("--")
  const last = end === -1 ? args.length : end
  const isOption = (i: number) => i < last && /^-./.test(args[i] ?? "")
  const isValue = (i: number) => i < last && isOption(i - 1) && options.has((args[i - 1] ?? "").replace(/^--/, ""))
  const first = args.filter((_, i) => isOption(i) || isValue(i))
  const others = args.filter((_, i) => !isOption(i) && !isValue(i))
  return [...first, ...others]
}

/** `--name=value` as two arguments. */
const split = (args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = args.indexOf("--")
  const options = end === -1 ? args : args.slice(0, end)
  return [
    ...options.flatMap((arg) => {
      const [, name, value] = /^(--[a-z-]+)=(.*)$/s.exec(arg) ?? []
      return name === undefined || value === undefined ? [arg] : [name, value]
    }),
    ...args.slice(options.length)
  ]
}

/** What the parser knows by itself. */
const builtIn = new Set(["--help", "-h", "--version", "--wizard", "--completions", "--log-level"])

// The parser would take an unknown option for an argument.
const checkNames = ({ flags, name, options }: Definition, args: ReadonlyArray<string>) => {
  for (const [i, arg] of args.entries()) {
    if (arg === "--") break
    const isValue = options.has((args[i - 1] ?? "").replace(/^--/, ""))
    if (!arg.startsWith("-") || arg === "-" || isValue || builtIn.has(arg)) continue
    const option = arg.startsWith("--") ? arg.slice(2) : ""
    if (!flags.has(option) && !options.has(option)) {
      return Either.left(
        new UsageError({
          message:
            `${name} has no option ${arg}; see surfing-weights ${name} --help, and give a path of this name as ./${arg}`
        })
      )
    }
  }
  return Either.void
}

const Value = Schema.Union(Schema.String, Schema.Number, Schema.Boolean, Schema.Array(Schema.String))

const File = Schema.parseJson(Schema.Record({
  key: Schema.String,
  value: Schema.Union(Value, Schema.Record({ key: Schema.String, value: Value }))
}))

type File = typeof File.Type

const readFile = (environment: Environment): Either.Either<File, UsageError> => {
  const given = environment["WEIGHTS_CONFIG"]
  const folder = environment["XDG_CONFIG_HOME"] ?? path.join(homedir(), ".config")
  const location = given ?? path.join(folder, "surfing-weights.json")
  if (given === undefined && !fs.existsSync(location)) return Either.right({})
  return Either.try({
    try: () => fs.readFileSync(location, "utf8"),
    catch: () => new UsageError({ message: `the file of options ${location} cannot be read` })
  }).pipe(
    Either.flatMap((json) =>
      Either.mapLeft(Schema.decodeUnknownEither(File)(json), () =>
        new UsageError({
          message: `the file of options ${location} must be a JSON object of options, such as {"quiet": true}`
        }))
    )
  )
}

const defaults = (
  { flags, name: command, options }: Definition,
  given: ReadonlySet<string>,
  environment: Environment,
  file: File
): Either.Either<ReadonlyArray<string>, UsageError> =>
  Either.gen(function*() {
    const ofCommand = file[command]
    const own = isRecord(ofCommand) ? ofCommand : {}
    const completed: Array<string> = []
    for (const name of [...flags, ...options]) {
      const variable = `WEIGHTS_${name.toUpperCase().replaceAll("-", "_")}`
      const values = textsOf(environment[variable] || (own[name] ?? file[name]))
      if (given.has(`--${name}`)) continue
      if (!flags.has(name)) completed.push(...values.flatMap((value) => [`--${name}`, value]))
      else if (values[0] === "true") completed.push(`--${name}`)
      else if (values[0] !== undefined && values[0] !== "false") {
        return yield* Either.left(
          new UsageError({
            message: `${variable}, or ${name} in the file of options, must be true or false (got ${values[0]})`
          })
        )
      }
    }
    return completed
  })

const isArray = (value: File[string] | undefined): value is ReadonlyArray<string> => Array.isArray(value)

const isRecord = (value: File[string] | undefined): value is Exclude<File[string], typeof Value.Type> =>
  typeof value === "object" && !isArray(value)

const textsOf = (value: File[string] | undefined): ReadonlyArray<string> =>
  value === undefined || isRecord(value) ? [] : isArray(value) ? value : [String(value)]
