/**
 * The process that a file in the hidden folder belongs to, as part of its name, so that files of killed processes can be
 * distinguished from those in use: `<host>-<boot>-<pid>-<start>`. A host is a machine, or a container with its own process
 * numbers; boot and start (empty where the system does not report them) distinguish processes with the same number.
 */
import * as Effect from "effect/Effect"
import * as nodeFs from "./nodeFs.js"

/** When a process started, in clock ticks since the machine did: field 22 of `/proc/<pid>/stat`, see proc(5). */
const startOf = (pid: number): Effect.Effect<string> =>
  nodeFs.readText(`/proc/${pid}/stat`, "latin1").pipe(
    // The second field, the name in parentheses, may itself hold spaces and parentheses.
    Effect.map((stat) => stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""),
    Effect.orElseSucceed(() => "")
  )

// FNV-1a, 32 bits: names a machine among the few that can share a directory.
const digest = (text: string): string => {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(36)
}

/** This process. */
export const current: Effect.Effect<string> = Effect.gen(function*() {
  const namespace = yield* Effect.orElseSucceed(nodeFs.readLink("/proc/self/ns/pid"), () => "")
  const boot = yield* Effect.orElseSucceed(nodeFs.readText("/proc/sys/kernel/random/boot_id", "latin1"), () => "")
  const start = yield* startOf(nodeFs.pid)
  return `${digest(`${nodeFs.hostname} ${namespace}`)}-${digest(boot)}-${nodeFs.pid}-${start}`
})

/** How long a file of another host must have been left alone to count as abandoned, in milliseconds: 24 hours. */
const foreignAge = 24 * 60 * 60 * 1000

/** Whether the process that owns a file, last written at a time in milliseconds, is gone. `self` is this process. */
export const isGone = (self: string, owner: string, writtenAt: number): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const [host, boot, pid, start] = owner.split("-")
    const [selfHost, selfBoot] = self.split("-")
    if (host !== selfHost) return Date.now() - writtenAt > foreignAge
    return boot !== selfBoot || !nodeFs.isRunning(Number(pid)) || (yield* startOf(Number(pid))) !== start
  })
