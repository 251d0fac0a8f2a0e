/**
 * The process that a file in the hidden folder belongs to, as part of its name, so that files of killed processes can be
 * distinguished from those in use: `<host>-<boot>-<pid>-<start>`. A host is a machine, or a container with its own process
 * numbers; boot and start (empty where the system does not report them) distinguish processes with the same number.
 *
 * Only a process that is known to be gone is gone. Where the system does not tell, as of other hosts, and of other users where
 * `/proc` hides them, a file counts as abandoned once it has been left alone for a day.
 */
import * as Effect from "effect/Effect"
import * as nodeFs from "./nodeFs.js"

/** What the system reports in a file; empty where it reports nothing. */
const report = (file: string): Effect.Effect<string> => Effect.orElseSucceed(nodeFs.readText(file, "latin1"), () => "")

/** The target of a link in `/proc`; empty where there is none. */
const linkIn = (file: string): Effect.Effect<string> => Effect.orElseSucceed(nodeFs.readLink(file), () => "")

/**
 * When a process started, in clock ticks since the machine did: field 22 of `/proc/<pid>/stat`, see proc(5). Empty where that is
 * not known: the process may be hidden, or `/proc` may be that of another container, and know it by another number.
 */
const startOf = (pid: number): Effect.Effect<string> =>
  Effect.flatMap(linkIn("/proc/self"), (self) =>
    self === String(nodeFs.pid)
      // The second field, the name in parentheses, may itself hold spaces and parentheses.
      ? Effect.map(report(`/proc/${pid}/stat`), (stat) => stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "")
      : Effect.succeed(""))

// FNV-1a, 32 bits: names a machine among the few that can share a directory.
const digest = (text: string): string => {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(36)
}

/** The namespace of process numbers that Linux starts with; others are those of containers. */
const firstNumbers = "pid:[4026531836]"

/**
 * What distinguishes machines of one name. In a container, it may be the same for all of one image: there, a machine that was
 * started again counts as another one.
 */
const machineOf = (numbers: string, boot: string): Effect.Effect<string> => {
  // Without their namespace, the numbers of processes mean nothing: this process is alone on its host then.
  if (numbers === "" && nodeFs.isLinux) return Effect.sync(() => String(Math.random()))
  return numbers === firstNumbers ? Effect.map(report("/etc/machine-id"), (id) => id || boot) : Effect.succeed(boot)
}

/** This process. */
export const current: Effect.Effect<string> = Effect.gen(function*() {
  const boot = yield* report("/proc/sys/kernel/random/boot_id")
  const numbers = yield* linkIn("/proc/self/ns/pid")
  const start = yield* startOf(nodeFs.pid)
  const host = [nodeFs.hostname, numbers, yield* machineOf(numbers, boot)].join(" ")
  return `${digest(host)}-${digest(boot)}-${nodeFs.pid}-${start}`
})

/** How long a file must have been left alone to count as abandoned where its process is not known, in ms: 24 hours. */
const abandonedAge = 24 * 60 * 60 * 1000

/** Whether the process that owns a file, last written at a time in milliseconds, is gone. `self` is this process. */
export const isGone = (self: string, owner: string, writtenAt: number): Effect.Effect<boolean> =>
  Effect.map(isKnownGone(self, owner), (known) => known ?? Date.now() - writtenAt > abandonedAge)

/** When the machine of a process was started, as a name; `undefined` where the system does not report it. */
export const bootOf = (owner: string): string | undefined => {
  const [, boot] = owner.split("-")
  return boot === digest("") ? undefined : boot
}

/** An owner that is no process, but the machine since it was started. */
export const machineOfOwner = (owner: string): string => `${owner.split("-", 2).join("-")}--`

/** Whether no process owns what a process owned: it is gone, or has left it to the machine. */
export const isFree = (self: string, owner: string): Effect.Effect<boolean> =>
  owner.endsWith("--") ? Effect.succeed(true) : Effect.map(isKnownGone(self, owner), (known) => known === true)

/** Whether nobody will use what was left to be resumed: the machine was started again, or it was left alone for a day. */
export const isForgotten = (self: string, owner: string, writtenAt: number): Effect.Effect<boolean> =>
  Effect.map(owner.endsWith("--") ? Effect.succeed(true) : isKnownGone(self, owner), (known) => {
    const isOutdated = known === true && self.split("-")[0] === owner.split("-")[0] && bootOf(self) !== bootOf(owner)
    return isOutdated || (known !== false && Date.now() - writtenAt > abandonedAge)
  })

/** Whether a process is gone, or `undefined` where that cannot be known. */
const isKnownGone = (self: string, owner: string): Effect.Effect<boolean | undefined> =>
  Effect.gen(function*() {
    const [host, boot, pid, start] = owner.split("-")
    const [selfHost, selfBoot] = self.split("-")
    if (host !== selfHost) return undefined
    if (boot !== selfBoot || !nodeFs.isRunning(Number(pid))) return true
    // Some process of this number runs.
    const running = yield* startOf(Number(pid))
    return start === "" || running === "" ? undefined : running !== start
  })
