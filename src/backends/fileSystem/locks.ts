/**
 * Locks by key, for what changes the file of a key after a look at it: among the fibers, worker threads and processes that use a
 * directory, also those of other machines.
 *
 * A lock between threads and processes is a symbolic link in the hidden folder whose text says who holds it; it is held for no
 * longer than a look at the object and a rename. That of a process that was killed meanwhile is removed by the next one.
 *
 * All locks of a thread are further names of one such link, its badge, where the file system has them: without a journal, ext4
 * takes no inode that was free for less than a minute, and looks at each of these for every new file. With a link of its own
 * for each lock, that was half of the processor time of many small saves there (bench row `save-small`); with a journal, it makes
 * no difference. A badge stays until another takes its place, or a storage is built once its process is gone.
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as KeyedLock from "../../internal/keyedLock.js"
import * as nodeFs from "./nodeFs.js"
import * as Owner from "./owner.js"
import { type Directory, holdOwn, pathOf, shortName } from "./paths.js"

/** How long to wait for the same holder where it is not known whether that still runs, in milliseconds. */
const patience = 30_000

/** How long to wait before the next try, at most, in milliseconds. */
const interval = 8

// Shared by every storage of the thread.
const locks = KeyedLock.make()

/** Runs an effect while no other fiber of this thread runs one for the name. */
export const withinThread = (directory: Directory, name: string): ReturnType<KeyedLock.Locks> =>
  locks(pathOf(directory, name))

/** Runs an effect while nothing else changes what the key's file is. `hidden` is the hidden folder, held. */
export const exclusively =
  (directory: Directory, hidden: nodeFs.Folder, key: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | nodeFs.SystemError, R> =>
    withinThread(directory, key)(
      Effect.flatMap(
        lockIn(hidden, directory, key),
        (lock) => Effect.acquireUseRelease(acquire(directory, lock), () => effect, (since) => release(lock, since))
      )
    )

/**
 * Runs an effect likewise, and without a lock if there can be none: what writes to the hidden folder cannot be at work where that
 * does not exist, and a full disk must not keep objects from being removed.
 */
export const exclusivelyIfPossible =
  (directory: Directory, key: string) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const acquireIn = (scope: Scope.Scope) =>
      Effect.gen(function*() {
        const lock = yield* lockIn(yield* Scope.extend(holdOwn(directory.hidden), scope), directory, key)
        return { lock, since: yield* acquire(directory, lock) }
      })
    return withinThread(directory, key)(Effect.acquireUseRelease(
      Scope.make(),
      (scope) =>
        Effect.acquireUseRelease(
          Effect.orElseSucceed(acquireIn(scope), () => undefined),
          () => effect,
          (held) => held === undefined ? Effect.void : release(held.lock, held.since)
        ),
      Scope.close
    ))
  }

interface Lock {
  readonly hidden: nodeFs.Folder
  readonly name: string
  /** Who holds it. */
  readonly text: string
}

const names = /^(lock-[0-9a-f]{32}|badge-.*)$/

const worker = Math.random().toString(36).slice(2, 10)

let count = 0

const lockIn = (hidden: nodeFs.Folder, directory: Directory, key: string): Effect.Effect<Lock> =>
  Effect.map(textOf(hidden, directory), (text) => ({
    hidden,
    name: `lock-${shortName(key)}`,
    text
  }))

/** How long a text is used, in milliseconds: others wait for longer until they take it for that of a lock left behind. */
const badgeAge = 10_000

/** What the locks of this thread say at present, and since when, by hidden folder. */
const badges = new Map<string, { readonly text: string; readonly since: number }>()

const badgeOf = (text: string): string => `badge-${text}`

/** What the locks of this thread say now; their badge is there if it can be. */
const textOf = (folder: nodeFs.Folder, { hidden, owner }: Directory): Effect.Effect<string> =>
  Effect.suspend(() => {
    const badge = badges.get(hidden)
    const now = Date.now()
    if (badge !== undefined && now - badge.since < badgeAge) return Effect.succeed(badge.text)
    const text = `${owner}-${worker}-${count++}`
    badges.set(hidden, { text, since: now })
    const removeOld = badge === undefined ? Effect.void : Effect.ignore(nodeFs.unlink(folder.at(badgeOf(badge.text))))
    return Effect.as(Effect.zipRight(removeOld, Effect.ignore(nodeFs.createText(folder.at(badgeOf(text)), text))), text)
  })

/** Takes a lock, or fails with `EEXIST`. */
const take = ({ hidden, name, text }: Lock): Effect.Effect<void, nodeFs.SystemError> =>
  Effect.catchIf(
    nodeFs.link(hidden.at(badgeOf(text)), hidden.at(name)),
    ({ code }) => code !== "EEXIST",
    () => nodeFs.createText(hidden.at(name), text)
  )

/** Waits for a lock, and returns when it got it; the wait can be interrupted. */
const acquire = (directory: Directory, lock: Lock): Effect.Effect<number, nodeFs.SystemError> =>
  Effect.gen(function*() {
    const path = lock.hidden.at(lock.name)
    let holder: string | undefined
    let since = 0
    for (let tries = 0;; tries++) {
      const isAcquired = yield* Effect.catchIf(
        Effect.as(take(lock), true),
        nodeFs.hasCode("EEXIST"),
        () => Effect.succeed(false)
      )
      if (isAcquired) return Date.now()
      const current = yield* holderOf(path)
      // The answer to the call that took it was lost, as happens over a network.
      if (current === lock.text) return Date.now()
      if (current !== holder) since = Date.now()
      holder = current
      if (holder !== undefined && (yield* isAbandoned(directory, holder, since))) yield* remove(path, holder)
      else yield* Effect.interruptible(nodeFs.pause(Math.random() * Math.min(2 ** tries, interval)))
    }
  })

const holderOf = (path: string): Effect.Effect<string | undefined> =>
  Effect.orElseSucceed(nodeFs.readCreatedText(path), () => undefined)

const isAbandoned = (directory: Directory, holder: string, since: number): Effect.Effect<boolean> =>
  Date.now() - since > patience ? Effect.succeed(true) : Owner.isGone(directory.owner, holder, Date.now())

/** Removes a lock, unless somebody else holds it now. */
const remove = (path: string, text: string): Effect.Effect<void> =>
  Effect.flatMap(holderOf(path), (holder) => holder === text ? Effect.ignore(nodeFs.unlink(path)) : Effect.void)

const release = ({ hidden, name, text }: Lock, since: number): Effect.Effect<void> =>
  // After long, others may have taken it for abandoned.
  Date.now() - since > patience ? remove(hidden.at(name), text) : Effect.ignore(nodeFs.unlink(hidden.at(name)))

/** Removes the locks of processes that were killed. */
export const reap = (directory: Directory): Effect.Effect<void> =>
  Effect.gen(function*() {
    const hidden = yield* holdOwn(directory.hidden)
    const entries = (yield* nodeFs.readFolder(hidden.path)) ?? []
    yield* Effect.forEach(
      entries.filter(({ name }) => names.test(name)),
      (entry) => reapLock(directory, hidden.at(entry.name)),
      { discard: true }
    )
  }).pipe(Effect.scoped, Effect.ignore)

const reapLock = (directory: Directory, path: string) =>
  Effect.gen(function*() {
    const { mtimeMs } = yield* nodeFs.lstat(path)
    const holder = yield* nodeFs.readCreatedText(path)
    if (yield* Owner.isGone(directory.owner, holder, Number(mtimeMs))) yield* remove(path, holder)
  }).pipe(Effect.ignore)
