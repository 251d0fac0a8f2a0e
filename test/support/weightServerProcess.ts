/**
 * A weight server of a directory in a process of its own.
 */
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import type { WeightServer } from "surfing-weights"

const root = fileURLToPath(new URL("../..", import.meta.url))
const childProgram = fileURLToPath(new URL("./weightServerChild.ts", import.meta.url))

export const serveInProcess = (directory: string, options: WeightServer.Options = {}) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, ["--import", "tsx", childProgram, directory, JSON.stringify(options)], {
          cwd: root,
          stdio: ["pipe", "pipe", "inherit"]
        })
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const [line] = yield* Effect.promise(() => once(child.stdout, "data") as Promise<[Buffer]>)
    const port = Number(String(line))
    return { child, port, url: `http://127.0.0.1:${port}` }
  })

/** The memory that a process has now, or `VmHWM` for the most that it had, in MiB. */
export const residentMemory = ({ pid }: ChildProcess, field: "VmRSS" | "VmHWM" = "VmRSS"): number => {
  const [, kilobytes] = new RegExp(`${field}:\\s+(\\d+)`).exec(fs.readFileSync(`/proc/${pid}/status`, "utf8")) ?? []
  return Number(kilobytes) / 1024
}
