/**
 * Runs the command that the arguments name, and ends the process with its exit code: 0, 1 if it failed, 2 if it was given wrongly,
 * 130 or 143 if a signal interrupted it.
 */
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import * as NodeTerminal from "@effect/platform-node/NodeTerminal"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import { constants } from "node:os"
import { complete } from "./arguments.js"
import { commands } from "./commands.js"
import { explain } from "./failures.js"
import { complain } from "./output.js"

/** Runs a command, and ends the process. */
export const run = (args: ReadonlyArray<string>, version: string): void => {
  // It is for developers, and would stand before each failure.
  process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] ??= "true"
  let isVerbose = false
  const program = Effect.gen(function*() {
    const completed = yield* complete(args, commands.map(({ definition }) => definition), process.env)
    isVerbose = completed.includes("--verbose")
    const minimum = isVerbose ? LogLevel.Debug : LogLevel.Info
    yield* Effect.scoped(parseAndRun(completed, version)).pipe(Logger.withMinimumLogLevel(minimum))
  })
  const fiber = Effect.runFork(Effect.provide(program, logging))
  const signalled = onSignal(() => fiber.unsafeInterruptAsFork(fiber.id()))
  const isClosed = onClosedOutput(() => fiber.unsafeInterruptAsFork(fiber.id()))
  fiber.addObserver((exit) => {
    const code = Exit.isSuccess(exit)
      ? 0
      : !Cause.isInterruptedOnly(exit.cause)
      ? report(exit.cause, args, isVerbose)
      : isClosed()
      ? 0
      : process.exitCode ?? signalled()
    // What is printed last may be on its way.
    process.stdout.write("", () => process.exit(code))
  })
}

const app = Command.make("surfing-weights").pipe(
  Command.withDescription(
    "Object storage for machine-learning weights. A place is a path, or a URL: file:///path, s3://bucket/key, " +
      "https://host/key, with options of the storage in its query. Options can also be set in the environment, " +
      "WEIGHTS_DRY_RUN for --dry-run. --completions bash, zsh or fish prints completions for a shell; --version the version."
  ),
  Command.withSubcommands([
    commands[0].command,
    ...commands.slice(1).map(({ command }) => command)
  ])
)

const parseAndRun = (args: ReadonlyArray<string>, version: string) =>
  Effect.consoleWith((console) =>
    Command.run(app, { name: "surfing-weights", version, executable: "surfing-weights" })(["", "", ...args]).pipe(
      Effect.withConsole({
        ...console,
        // Failures are printed in one place.
        error: () => Effect.void,
        log: (...texts: ReadonlyArray<unknown>) => console.log(...texts.map((text) => plain(String(text))))
      })
    )
  ).pipe(
    Effect.provide(Layer.mergeAll(
      NodeFileSystem.layer,
      NodePath.layer,
      NodeTerminal.layer,
      CliConfig.layer({ showBuiltIns: false })
    ))
  )

/** Colours are for terminals. */
const plain = (text: string): string =>
  process.stdout.isTTY === true && process.env["NO_COLOR"] === undefined ? text : withoutColours(text)

const withoutColours = (text: string): string => text.replace(/\u001b\[[\d;]*m/g, "")

const logging = Logger.replace(
  Logger.defaultLogger,
  Logger.map(Logger.logfmtLogger, (line) => complain(line))
)

/** Prints a failure, and returns the exit code. */
const report = (
  cause: Cause.Cause<{ readonly _tag: string; readonly message: string } | ValidationError.ValidationError>,
  args: ReadonlyArray<string>,
  isVerbose: boolean
): number => {
  const failure = Option.getOrUndefined(Cause.failureOption(cause))
  if (ValidationError.isValidationError(failure)) {
    const command = args.find((arg) => !arg.startsWith("-")) ?? ""
    const help = commands.some(({ definition }) => definition.name === command) ? `${command} --help` : "--help"
    const message = withoutColours(HelpDoc.toAnsiText(failure.error)).trim().replace(/\s*\n\s*/g, "; ")
    complain(`surfing-weights: ${message}; see surfing-weights ${help}`)
    return 2
  }
  complain(`surfing-weights: ${explain(cause, failure, isVerbose)}`)
  return failure?._tag === "UsageError" || failure?._tag === "InvalidOptions" ? 2 : 1
}

/** The first signal interrupts; npm repeats one that the terminal has sent, so a second one ends the process only later. */
const onSignal = (interrupt: () => void): () => number => {
  let first: { readonly at: number; readonly code: number } | undefined
  const receive = (signal: "SIGINT" | "SIGTERM") => {
    const code = 128 + constants.signals[signal]
    if (first === undefined) {
      first = { at: performance.now(), code }
      interrupt()
    } else if (performance.now() - first.at > 500) {
      process.exit(code)
    }
  }
  process.on("SIGINT", receive).on("SIGTERM", receive)
  return () => first?.code ?? 1
}

/** A reader of the output that has seen enough, such as `head`, ends the command. */
const onClosedOutput = (interrupt: () => void): () => boolean => {
  let isClosed = false
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error
    isClosed = true
    interrupt()
  })
  process.stderr.on("error", () => {})
  return () => isClosed
}
