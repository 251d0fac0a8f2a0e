/**
 * The files that saves are written to before they are renamed into place. They stand in one folder of the base
 * directory, so in the same file system as most of what they become, and are named after the process that writes
 * them: what a killed process left can be told from what a live one is writing.
 */
import * as Effect from "effect/Effect"
import { reserved } from "./fileNames.js"
import * as files from "./files.js"

/**
 * A process as its files name it. `host` counts as another machine what has process numbers of its own, such as a
 * container; `boot` and `started` (empty where the system does not say) tell a process from a later one of its number.
 */
interface Owner {
  readonly host: string
  readonly boot: string
  readonly pid: number
  readonly started: string
}

/** When a process started, in clock ticks since the machine did: field 22 of `/proc/<pid>/stat`, see proc(5). */
const startOf = (pid: number): Effect.Effect<string> =>
  files.readText(`/proc/${pid}/stat`).pipe(
    // The second field, the name in brackets, may itself hold spaces and brackets.
    Effect.map((stat) => stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""),
    Effect.orElseSucceed(() => "")
  )

// FNV-1a, 32 bits: names a machine among the few that can share a directory.
const digest = (text: string): string => {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(36)
}

const self: Effect.Effect<Owner> = Effect.all({
  host: Effect.map(
    Effect.orElseSucceed(files.readLink("/proc/self/ns/pid"), () => ""),
    (namespace) => digest(`${files.hostname} ${namespace}`)
  ),
  boot: Effect.map(Effect.orElseSucceed(files.readText("/proc/sys/kernel/random/boot_id"), () => ""), digest),
  pid: Effect.succeed(files.pid),
  started: Effect.suspend(() => startOf(files.pid))
})

/** How long a file from another machine must have been left alone before it counts as left over: 24 hours. */
const foreignAge = 24 * 60 * 60 * 1000

/** The temporary files of one base directory. */
export interface TemporaryFiles {
  readonly folder: string
  /** A path that no other file of any process has. */
  readonly next: () => string
}

/** Removes what killed processes left, never what a live one is writing, and names new files from then on. */
export const make = (directory: string): Effect.Effect<TemporaryFiles> =>
  Effect.gen(function*() {
    const owner = yield* self
    const folder = `${directory}/${reserved}`
    // A folder that is not there yet, or cannot be read, has nothing to clean; a save will say what is wrong with it.
    const found = (yield* Effect.orElseSucceed(files.readFolder(folder), () => undefined)) ?? []
    yield* Effect.forEach(found, ({ name }) => reap(owner, folder, name), { discard: true })
    const prefix = `${folder}/${owner.host}-${owner.boot}-${owner.pid}-${owner.started}-${random()}`
    let count = 0
    return { folder, next: () => `${prefix}-${count++}` }
  })

// Two workers of one process have the same owner.
const random = (): string => Math.random().toString(36).slice(2, 10)

const reap = (self: Owner, folder: string, name: string): Effect.Effect<void> =>
  Effect.gen(function*() {
    const match = /^([^-]+)-([^-]*)-(\d+)-(\d*)-[^-]+-\d+$/.exec(name)
    if (match === null) return
    const [, host, boot, pid, started] = match
    const path = `${folder}/${name}`
    const left = host !== self.host
      ? Date.now() - Number((yield* files.lstat(path)).mtimeMs) > foreignAge
      : boot !== self.boot || !files.isRunning(Number(pid)) || (yield* startOf(Number(pid))) !== started
    if (left) yield* files.unlink(path)
  }).pipe(Effect.ignore)
