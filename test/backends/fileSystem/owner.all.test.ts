/**
 * Temporary files of live and killed processes, where others cannot see them: of other users under `hidepid`, in other
 * namespaces of process numbers, and with the number of an earlier process.
 */
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage } from "surfing-weights"
import { expect } from "vitest"
import { temporaryFiles } from "../../support/directory.js"
import { canMount, inDirectory, isLinux, isRoot, needs } from "../../support/fileSystem.js"
import { child, childBy, output, untilReady } from "../../support/fileSystemProcesses.js"
import { eventually } from "../../support/timing.js"

const canHide = canMount && isLinux && (() => {
  try {
    execFileSync("unshare", ["--mount", "--pid", "--fork", "--mount-proc", "true"], { stdio: "ignore" })
    return true
  } catch {
    return false
  }
})()

/** Where `/proc` does not show the processes of other users. */
const hiding = [
  "unshare",
  "--mount",
  "sh",
  "-c",
  "mount -t proc -o hidepid=2 proc /proc && exec \"$0\" \"$@\""
] as const

const container = ["unshare", "--pid", "--fork", "--mount-proc"] as const

/** As in a container that sees the `/proc` of its host. */
const containerWithProcOfHost = ["unshare", "--pid", "--fork"] as const

type Command = Parameters<typeof childBy>[0]

/** A directory that every user may write to. */
const shared = <E>(test: (directory: string) => Effect.Effect<void, E>) =>
  inDirectory((directory) =>
    Effect.suspend(() => {
      fs.mkdirSync(path.join(directory, ".surfing-weights"))
      for (const folder of [directory, path.join(directory, ".surfing-weights")]) fs.chmodSync(folder, 0o777)
      return test(directory)
    })
  )

/** Begins a save, and returns the name of its temporary file. */
const stalled = (directory: string, [command, env]: readonly [Command, Record<string, string>]) =>
  Effect.gen(function*() {
    yield* untilReady(yield* childBy(command, env, "stall", directory))
    yield* eventually(() => expect(temporaryFiles(directory).length).toBe(1))
    return temporaryFiles(directory)
  })

/** Builds a storage in this process. */
const buildHere = (directory: string) => Effect.asVoid(FileSystemStorage.make({ directory }))

/** Builds a storage in another process. */
const buildBy = (command: Command, env: Record<string, string> = {}) => (directory: string) =>
  Effect.map(Effect.flatMap(childBy(command, env, "build", directory), output), (out) => expect(out).toBe("built\n"))

describe("the temporary file of a live save is kept by a storage of", () => {
  const cases = {
    "another user, where /proc hides processes": {
      save: [hiding, { TEST_USER: "65534" }],
      build: buildBy(hiding, { TEST_USER: "65533" })
    },
    "a container, if the save runs on the host": { save: [["env"], {}], build: buildBy(container) },
    "the host, if the save runs in a container that sees its /proc": {
      save: [containerWithProcOfHost, {}],
      build: buildHere
    }
  } as const
  for (const [name, { build, save }] of Object.entries(cases)) {
    needs("root on Linux", canHide).live(
      name,
      shared((directory) =>
        Effect.gen(function*() {
          const before = yield* stalled(directory, save)
          yield* build(directory)
          expect(temporaryFiles(directory)).toEqual(before)
        }).pipe(Effect.scoped)
      )
    )
  }
})

const lastPid = "/proc/sys/kernel/ns_last_pid"

/** Starts processes until one has this number. */
const reuse = (pid: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      for (let i = 0; i < 500; i++) {
        fs.writeFileSync(lastPid, String(pid - 1))
        const sleeping = spawn("sleep", ["600"])
        if (sleeping.pid === pid) return sleeping
        sleeping.kill("SIGKILL")
      }
      throw new Error(`no process got the number ${pid}`)
    }),
    (sleeping) => Effect.sync(() => sleeping.kill("SIGKILL"))
  )

describe("the temporary file of a killed save", () => {
  needs("root on Linux with ns_last_pid", isLinux && isRoot && fs.existsSync(lastPid)).live(
    "is removed though another process has its number by now",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const pid = yield* Effect.scoped(Effect.gen(function*() {
          const process = yield* child("stall", directory)
          yield* untilReady(process)
          yield* eventually(() => expect(temporaryFiles(directory).length).toBe(1))
          return process.pid ?? 0
        }))
        expect(temporaryFiles(directory)[0]).toContain(`-${pid}-`)
        const other = yield* reuse(pid)
        yield* FileSystemStorage.make({ directory })
        expect(temporaryFiles(directory)).toEqual([])
        expect(other.exitCode).toBe(null)
      }).pipe(Effect.scoped)
    )
  )
})
