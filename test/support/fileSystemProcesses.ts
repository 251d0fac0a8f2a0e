/**
 * Other processes that use a storage on a directory, running `fileSystemChild.ts`.
 */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"

export const childProgram = fileURLToPath(new URL("./fileSystemChild.ts", import.meta.url))

/** Another process that uses a storage on the directory. */
export const child = (...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, ["--import", "tsx", childProgram, ...args])),
    (process) =>
      Effect.promise(async () => {
        if (process.exitCode !== null || process.signalCode !== null) return
        process.kill("SIGKILL")
        await once(process, "exit")
      })
  )

/** The same, run by another command, such as `unshare` or `sh`, which gets the command of the child as its last arguments. */
export const childBy = (
  command: readonly [string, ...ReadonlyArray<string>],
  env: Record<string, string>,
  ...args: ReadonlyArray<string>
) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [program, ...before] = command
      return spawn(program, [...before, process.execPath, "--import", "tsx", childProgram, ...args], {
        env: { ...process.env, ...env },
        // A group of its own, so that what the command started ends with it.
        detached: true
      })
    }),
    ended
  )

const ended = (process: ReturnType<typeof spawn>) =>
  Effect.promise(async () => {
    if (process.exitCode !== null || process.signalCode !== null || process.pid === undefined) return
    globalThis.process.kill(-process.pid, "SIGKILL")
    await once(process, "exit")
  })

export const output = (process: ReturnType<typeof spawn>) =>
  Effect.promise(async () => {
    let out = ""
    let errors = ""
    process.stdout?.on("data", (data) => void (out += String(data)))
    process.stderr?.on("data", (data) => void (errors += String(data)))
    await once(process, "close")
    return process.exitCode === 0 ? out : `${out}${errors}`
  })

export const untilReady = (process: ReturnType<typeof spawn>) =>
  Effect.promise(async () => {
    process.stderr?.pipe(globalThis.process.stderr)
    if (process.stdout !== null) await once(process.stdout, "data")
  })
