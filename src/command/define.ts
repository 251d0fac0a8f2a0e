/**
 * How commands are defined: each has the common options, and loads what it needs when it runs.
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Failure } from "./failures.js"
import { Output } from "./output.js"
import { Wrapping } from "./wrapping.js"

/** A switch. */
export const flag = (name: string, description: string): Options.Options<boolean> =>
  Options.boolean(name).pipe(Options.withDescription(description))

/** A text that may be given once. */
export const text = (name: string, value: string, description: string): Options.Options<string | undefined> =>
  Options.text(name).pipe(
    Options.withPseudoName(value),
    Options.withDescription(description),
    Options.optional,
    Options.map(Option.getOrUndefined)
  )

/** A text that may be repeated. */
export const texts = (name: string, value: string, description: string): Options.Options<ReadonlyArray<string>> =>
  Options.text(name).pipe(Options.withPseudoName(value), Options.withDescription(description), Options.repeated)

/** A place, such as `./weights` or `s3://bucket/key`. */
export const place = (name: string, description: string): Args.Args<string> =>
  Args.text({ name }).pipe(Args.withDescription(description))

/** At least one place. */
export const places = (name: string, description: string): Args.Args<ReadonlyArray<string>> =>
  Args.text({ name }).pipe(Args.withDescription(description), Args.atLeast(1))

const common = {
  json: flag("json", "Print each result and event as a line of JSON."),
  quiet: flag("quiet", "Print only results and failures."),
  verbose: flag("verbose", "Print the cause and the trace of a failure.")
}

const wrapping = {
  keyFile: text(
    "key-file",
    "file",
    "Encrypt what is saved at URLs, and decrypt what is loaded, with the keys of this file: lines of an id and 32 bytes in " +
      "Base64, the key for new objects first."
  ),
  compress: flag(
    "compress",
    "Store safetensors files and text at URLs in less space; what is loaded is as it was saved. Large files wait in the " +
      "directory for temporary files (TMPDIR) meanwhile."
  )
}

/** A command, and what is to be known of its options before they are parsed. */
export interface Definition {
  readonly name: string
  /** Without the dashes. */
  readonly flags: ReadonlySet<string>
  /** Without the dashes; those that take a value. */
  readonly options: ReadonlySet<string>
}

/** What a command receives: the parsed value of each argument and option. */
type Input<Config extends Command.Command.Config> = Command.Command.ParseConfig<{ readonly input: Config }>["input"]

/** Defines a command. */
export const define = <Name extends string, const Config extends Command.Command.Config>(
  name: Name,
  description: string,
  config: Config,
  load: () => Promise<
    (input: Input<Config>) => Effect.Effect<void, Failure, Output | Wrapping | Scope.Scope>
  >
) => ({
  definition: definitionOf(name, { ...config, ...common, ...wrapping }),
  command: Command.make(
    name,
    { input: config, settings: common, wrapping },
    ({ input, settings, wrapping }) =>
      Effect.flatMap(Effect.promise(load), (command) => command(input)).pipe(
        Effect.scoped,
        Effect.provideService(Output, settings),
        Effect.provideService(Wrapping, wrapping)
      )
  ).pipe(Command.withDescription(description))
})

const definitionOf = (name: string, config: Command.Command.Config): Definition => {
  const flags = new Set<string>()
  const options = new Set<string>()
  for (const option of Object.values(config)) {
    if (!Options.isOptions(option)) continue
    const identifier = Option.getOrElse(Options.getIdentifier(option), () => "").replace(/^--/, "")
    if (Options.isBool(option)) flags.add(identifier)
    else options.add(identifier)
  }
  return { name, flags, options }
}
