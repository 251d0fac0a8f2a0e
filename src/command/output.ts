/**
 * What a command prints: results and events on standard output, failures, warnings and progress on standard error. On a
 * terminal, the line of progress is erased before anything else is printed.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/** The options that all commands have. */
export interface Settings {
  /** Whether each event and result is a line of JSON. */
  readonly json: boolean
  /** Whether only results and failures are printed. */
  readonly quiet: boolean
  /** Whether failures are printed with their cause and trace. */
  readonly verbose: boolean
}

/** A result or event, as JSON. */
export type Json = object

export class Output extends Context.Tag("surfing-weights/command/Output")<Output, Settings>() {}

/** Writes to standard output, and waits where its reader is slow. */
export const write = (data: string | Uint8Array): Effect.Effect<void> =>
  Effect.async((resume) => {
    eraseStatus()
    if (process.stdout.write(data)) return resume(Effect.void)
    const done = () => resume(Effect.void)
    process.stdout.once("drain", done)
    return Effect.sync(() => process.stdout.off("drain", done))
  })

/** Prints something that the command was asked for. */
export const result = (json: Json, text: string): Effect.Effect<void, never, Output> =>
  Effect.flatMap(Output, (settings) => write(`${settings.json ? JSON.stringify(json) : text}\n`))

/** Prints results of one page together. */
export const results = (
  lines: ReadonlyArray<readonly [json: Json, text: string]>
): Effect.Effect<void, never, Output> =>
  lines.length === 0 ?
    Effect.void :
    Effect.flatMap(Output, (settings) =>
      write(lines.map(([json, text]) => `${settings.json ? JSON.stringify(json) : text}\n`).join("")))

/** Prints what has been done, unless the command is to be quiet. */
export const event = (json: Json, text?: string): Effect.Effect<void, never, Output> =>
  Effect.flatMap(Output, (settings) =>
    settings.json
      ? write(`${JSON.stringify(json)}\n`)
      : settings.quiet || text === undefined
      ? Effect.void
      : write(`${text}\n`))

/** Prints a failure, a warning or a line of progress on standard error. */
export const complain = (text: string): void => {
  eraseStatus()
  process.stderr.write(`${text}\n`)
}

/** A failure that does not end the command. */
export const warn = (message: string): Effect.Effect<void> => Effect.sync(() => complain(`surfing-weights: ${message}`))

/** Whether standard error is a terminal, where a line can be redrawn. */
export const isTerminal = (): boolean => process.stderr.isTTY === true

let hasStatus = false

/** Draws the line of progress in place of the last one. */
export const drawStatus = (text: string): void => {
  hasStatus = true
  process.stderr.write(`\r${text.slice(0, (process.stderr.columns || 80) - 1)}\u001b[K`)
}

/** Removes the line of progress. */
export const eraseStatus = (): void => {
  if (!hasStatus) return
  hasStatus = false
  process.stderr.write("\r\u001b[K")
}

/** Bytes for people, such as `1.5 MiB`. */
export const formatBytes = (bytes: number): string => {
  if (bytes < 1024) return `${bytes} B`
  const power = Math.min(Math.floor(Math.log2(bytes) / 10), units.length)
  const value = bytes / 1024 ** power
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[power - 1]}`
}

const units = ["KiB", "MiB", "GiB", "TiB", "PiB"]

/** The number with its noun, such as `2 objects`. */
export const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`
