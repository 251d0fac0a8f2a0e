/**
 * File descriptors, of which a process may have few (`ulimit -n`). What needs one while none is free waits until another
 * is closed.
 *
 * What holds one and waits for another could wait forever, so each purpose has a share, larger the more may be held already:
 * all streams leave some to saves, all saves some to the streams that they read, and these some to calls. A few are left
 * to the rest of the program in any case.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import * as fs from "node:fs"
import { Permits } from "../../internal/permits.js"

/**
 * What a descriptor is for: one call, which closes it again; a stream that a save reads; the file of a save; the folder that this
 * is in; or any other stream. What a save needs within the stream of another counts first as a call, then as `nested`. What a save
 * needs last, to give its file a name, counts as a `commit`.
 */
export type Purpose = "commit" | "nested" | "call" | "source" | "save" | "folder" | "stream"

/** The sixty-fourths of all descriptors that each may use, the most urgent first. */
const shares: Readonly<Record<Purpose, number>> = {
  commit: 62,
  nested: 61,
  call: 60,
  source: 56,
  save: 52,
  folder: 46,
  stream: 40
}

/** How long to wait while no descriptor is closed, in milliseconds. */
const patience = 10_000

/** How often to look whether other parts of the program have closed some, in milliseconds. */
const interval = 20

/** How many of its own a process may always have. */
const few = 8

/** Whether a fiber holds a descriptor that it keeps while it waits for another: it saves. */
export const isHolding: FiberRef.FiberRef<boolean> = globalValue(
  Symbol.for("surfing-weights/fileSystem/isHolding"),
  () => FiberRef.unsafeMake(false)
)

const turns = new Permits(32)

/** Runs an effect that holds several folders, as to give a file its name does: a few at a time. */
export const inTurn = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => turns.withPermit(effect)

let limit = Infinity

/** Learns how many descriptors the process may have, which only Linux says. To be run while there are some. */
export const learnLimit: Effect.Effect<void> = Effect.sync(() => {
  try {
    limit = Number(/^Max open files\s+(\d+)/m.exec(fs.readFileSync("/proc/self/limits", "latin1"))?.[1] ?? Infinity)
  } catch {
    // It remains what it was.
  }
})

let inUse = 0

/** Counts a descriptor that was opened. */
export const opened = (): void => {
  inUse++
}

/** Counts a descriptor that was closed, and lets one of those who wait try again. */
export const closed = (): void => {
  inUse--
  wakeNext()
}

/** Whether a descriptor that was just opened should be closed again. The system hands out the lowest number that is free. */
export const isScarce = (descriptor: number, purpose: Purpose): boolean =>
  descriptor >= limit * shares[purpose] / 64 && inUse > few

/** The errors of a system that has no descriptor left, for this process or at all. */
export const exhausted = ["EMFILE", "ENFILE"] as const

// Those who wait

type Wake = (mayBeFree: boolean) => void

const waiting: Readonly<Record<Purpose, Set<Wake>>> = {
  commit: new Set(),
  nested: new Set(),
  call: new Set(),
  source: new Set(),
  save: new Set(),
  folder: new Set(),
  stream: new Set()
}

const mostUrgent = (): Set<Wake> | undefined => Object.values(waiting).find(({ size }) => size > 0)

const wake = (queue: Set<Wake>, mayBeFree: boolean): void => {
  for (const next of queue) {
    queue.delete(next)
    return next(mayBeFree)
  }
}

let lastClosed = 0

const wakeNext = (): void => {
  const queue = mostUrgent()
  if (queue === undefined) return
  lastClosed = performance.now()
  wake(queue, true)
}

// Kept here, since tests with fake timers replace them.
const { clearInterval, performance, setInterval } = globalThis
let timer: ReturnType<typeof setInterval> | undefined

const tick = (): void => {
  const queue = mostUrgent()
  if (queue === undefined) {
    clearInterval(timer)
    timer = undefined
  } else if (performance.now() - lastClosed < patience) wake(queue, true)
  // Some of them, in case that they hold what the others wait for.
  else for (let i = Math.ceil(queue.size / 16); i > 0; i--) wake(queue, false)
}

/** Waits until a descriptor may be free; returns false where none was closed for long. */
const wait = (purpose: Purpose): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    const awake: Wake = (mayBeFree) => resume(Effect.succeed(mayBeFree))
    waiting[purpose].add(awake)
    if (timer === undefined) {
      lastClosed = performance.now()
      timer = setInterval(tick, interval)
    }
    return Effect.sync(() => waiting[purpose].delete(awake))
  })

/** How long to respect the shares, as a time of `performance.now`. Later it may take what the system gives. */
export type Patience = number

/** That of a first try. */
export const patient: Patience = Infinity

/** Whether to respect the shares. */
export const isPatient = (until: Patience): boolean => performance.now() < until

/**
 * Tries something again once a descriptor may be free, or gives up. `restore` makes the wait as interruptible as the call was.
 */
export const again = <A, E, R>(
  purpose: Purpose,
  until: Patience,
  restore: Restore,
  retry: (until: Patience) => Effect.Effect<A, E, R>,
  giveUp: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const deadline = until === patient ? performance.now() + patience : until
    return Effect.flatMap(restore(wait(purpose)), (mayBeFree) =>
      mayBeFree ? retry(deadline) : isPatient(until) ? retry(0) : giveUp)
  })

/** What `Effect.uninterruptibleMask` passes. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
