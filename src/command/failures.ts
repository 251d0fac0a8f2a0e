/**
 * The failures of commands, and what a person sees of them: one line, or with `--verbose` also causes and traces.
 */
import * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"
import type { StorageError } from "../StorageError.js"
import type { ModelChunksError } from "../weights/ModelChunks.js"
import type { SafetensorsError } from "../weights/Safetensors.js"

/** The command was given wrongly. Exit code 2. */
export class UsageError extends Schema.TaggedError<UsageError>("surfing-weights/UsageError")("UsageError", {
  message: Schema.String
}) {}

/** The command could not do what it was asked for. Exit code 1. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>("surfing-weights/CommandFailed")("CommandFailed", {
  message: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {}

/** Every failure of a command. */
export type Failure = StorageError | SafetensorsError | ModelChunksError | UsageError | CommandFailed

/** What to print. A defect is a bug, so it is shown with its trace. */
export const explain = (
  cause: Cause.Cause<unknown>,
  failure: { readonly message: string } | undefined,
  verbose: boolean
): string =>
  failure === undefined
    ? `this is a bug, please report it: ${pretty(cause)}`
    : verbose
    ? `${oneLine(failure.message)}\n${pretty(cause)}`
    : oneLine(failure.message)

const pretty = (cause: Cause.Cause<unknown>): string => Cause.pretty(cause, { renderErrorCause: true })

const oneLine = (message: string): string => message.trim().replace(/\s*\n\s*/g, "; ")
