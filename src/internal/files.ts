/**
 * The one door to `node:fs` (which Node, Bun and Deno have): each of its calls as an effect that fails with the
 * system's own error. `@effect/platform`'s `FileSystem` has no links, no flush of a folder, no times finer than a
 * millisecond and no error codes, and reads at a quarter of the speed.
 *
 * A call that the system has begun cannot be recalled, so none can be interrupted: whoever closes a file afterwards
 * knows that nothing is still reading or writing it.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import type { Flavor } from "./fileNames.js"
import { type Begin, once } from "./once.js"

/** An error of the operating system: `code` is its name, such as `ENOENT`. */
export class SystemError extends Data.TaggedError("SystemError")<{
  readonly code: string
  readonly cause: NodeJS.ErrnoException
}> {}

/** An open file. */
export type Descriptor = number

export type Stats = fs.BigIntStats

const toSystemError = (cause: NodeJS.ErrnoException): SystemError =>
  new SystemError({ code: cause.code ?? cause.name, cause })

type Callback<A> = (error: NodeJS.ErrnoException | null, value: A) => void

const call = <A>(run: (done: Callback<A>) => void): Effect.Effect<A, SystemError> =>
  asynchronous<A, SystemError>((resume) =>
    run((error, value) => resume(error === null ? Effect.succeed(value) : Effect.fail(toSystemError(error))))
  )

const asynchronous = <A, E>(begin: Begin<A, E>): Effect.Effect<A, E> =>
  Effect.suspend(() =>
    Effect.uninterruptible(once((resume) =>
      submit(() => {
        try {
          begin(resume)
        } catch (bug) {
          resume(Effect.die(bug))
        }
      })
    ))
  )

// As it was before any test put a clock of its own in its place.
const later = globalThis.setImmediate

let submitted: Array<() => void> = []

/**
 * Calls into the system are made together, once the event loop is through with what has come in. A call by itself finds
 * the threads of the pool asleep, and to wake one costs as much as to read a small file.
 */
const submit = (run: () => void): void => {
  if (submitted.push(run) === 1) later(flush)
}

const flush = (): void => {
  const runs = submitted
  submitted = []
  for (const run of runs) run()
}

const { O_CREAT, O_EXCL, O_RDONLY, O_WRONLY } = fs.constants

// Without it, opening a pipe that nobody writes to would wait for ever. Windows has neither.
const O_NONBLOCK: number = fs.constants.O_NONBLOCK ?? 0

/** An array of `size` bytes, not yet zeroed, or `undefined` where the runtime has none so large. */
export const allocate = (size: number): Uint8Array | undefined => {
  try {
    return new Uint8Array(Buffer.allocUnsafeSlow(size).buffer)
  } catch (cause) {
    if (cause instanceof RangeError) return undefined
    throw cause
  }
}

/** Opens a file to read. */
export const open = (file: string) => call<Descriptor>((done) => fs.open(file, O_RDONLY | O_NONBLOCK, done))

/** What to read of an open file: as many bytes as `target` has, from `position` on. */
export interface Part<E> {
  readonly target: Uint8Array
  readonly position: number
  /** The failure if the file ends at this position, before the target is full. */
  readonly endedEarly: (position: number) => E
}

/**
 * Opens a file, lets `plan` look at it and say what to read, reads that, closes the file, and gives the full target. One
 * effect for it all, since for a small file the way through four of them costs more than the system does.
 */
export const readPart = <E, E2>(
  file: string,
  plan: (descriptor: Descriptor, stats: Stats) => Either.Either<Part<E>, E2>
): Effect.Effect<Uint8Array, E | E2 | SystemError> =>
  asynchronous<Uint8Array, E | E2 | SystemError>((resume) =>
    fs.open(file, O_RDONLY | O_NONBLOCK, (error, descriptor) => {
      if (error !== null) return resume(Effect.fail(toSystemError(error)))
      const end = (outcome: Effect.Effect<Uint8Array, E | E2 | SystemError>): void => {
        closeRead(descriptor)
        resume(outcome)
      }
      const planned = Either.flatMap(statOf(descriptor), (stats) => plan(descriptor, stats))
      if (Either.isLeft(planned)) return end(Effect.fail(planned.left))
      const { endedEarly, position, target } = planned.right
      const readFrom = (at: number): void => {
        if (at === target.byteLength) return end(Effect.succeed(target))
        submit(() =>
          fs.read(descriptor, target, at, target.byteLength - at, position + at, (error, count) => {
            if (error !== null) end(Effect.fail(toSystemError(error)))
            else if (count === 0) end(Effect.fail(endedEarly(position + at)))
            else readFrom(at + count)
          })
        )
      }
      readFrom(0)
    })
  )

/** What is known of an open file. The system has it at hand since it opened the file, so this does not wait. */
const statOf = (descriptor: Descriptor): Either.Either<Stats, SystemError> =>
  Either.try({
    try: () => fs.fstatSync(descriptor, { bigint: true }),
    catch: (error) => toSystemError(error as NodeJS.ErrnoException)
  })

/** Closes a file that was only read: nothing of it is left to be written, so this does not wait for a disk. */
const closeRead = (descriptor: Descriptor): void => {
  try {
    fs.closeSync(descriptor)
  } catch {
    // What came of the reading is known, and the descriptor is free either way.
  }
}

const descriptors = "/proc/self/fd"

/** Whether the system tells where an open file is, as Linux does. */
export const tellsWhere: boolean = fs.existsSync(descriptors)

/**
 * The path of an open file, without links, or `undefined` where the system does not tell (also on Linux, where a process
 * has given up its privileges). It is asked of the kernel, not of a disk, so it does not wait.
 */
export const whereIs = (descriptor: Descriptor): string | undefined => {
  try {
    return tellsWhere ? fs.readlinkSync(`${descriptors}/${descriptor}`) : undefined
  } catch {
    return undefined
  }
}

/** Creates a file to write; where there is one already, that is `EEXIST`. */
export const create = (file: string) => call<Descriptor>((done) => fs.open(file, O_WRONLY | O_CREAT | O_EXCL, done))

export const close = (file: Descriptor) => call<void>((done) => fs.close(file, done))

export const stat = (file: Descriptor | string) =>
  call<Stats>((done) =>
    typeof file === "string" ? fs.stat(file, { bigint: true }, done) : fs.fstat(file, { bigint: true }, done)
  )

/** Like `stat`, but of a symbolic link itself. */
export const lstat = (file: string) => call<Stats>((done) => fs.lstat(file, { bigint: true }, done))

/** Reads up to `length` bytes at `position`, as many as the system gives at once; 0 at the end of the file. */
export const read = (file: Descriptor, target: Uint8Array, offset: number, length: number, position: number) =>
  call<number>((done) => fs.read(file, target, offset, length, position, done))

/** Writes the arrays one after another at `position`, all of them. */
export const write = (
  file: Descriptor,
  data: ReadonlyArray<Uint8Array>,
  position: number
): Effect.Effect<void, SystemError> =>
  Effect.flatMap(
    call<number>((done) => fs.writev(file, data, position, done)),
    (written) => {
      const rest = dropBytes(data, written)
      return rest.length === 0 ? Effect.void : write(file, rest, position + written)
    }
  )

const dropBytes = (data: ReadonlyArray<Uint8Array>, count: number): ReadonlyArray<Uint8Array> => {
  let left = count
  for (const [i, bytes] of data.entries()) {
    if (left < bytes.byteLength) return [bytes.subarray(left), ...data.slice(i + 1)]
    left -= bytes.byteLength
  }
  return []
}

/** Sets the time of last change, in seconds since 1970. */
export const setTime = (file: Descriptor, seconds: number) =>
  call<void>((done) => fs.futimes(file, seconds, seconds, done))

/** Returns when the file, and what is needed to find its bytes again, is on the disk. */
export const sync = (file: Descriptor) => call<void>((done) => fs.fsync(file, done))

/** Returns when the bytes written so far are on the disk. */
export const syncData = (file: Descriptor) => call<void>((done) => fs.fdatasync(file, done))

/** Returns when the names in a folder are on the disk. Windows opens no folders, and keeps their names by itself. */
export const syncFolder = (folder: string): Effect.Effect<void, SystemError> =>
  flavor === "windows"
    ? Effect.void
    : Effect.acquireUseRelease(open(folder), sync, (file) => Effect.ignore(close(file)))

export const rename = (from: string, to: string) => call<void>((done) => fs.rename(from, to, done))

/** A second name for a file; where there is a file of that name, that is `EEXIST`, atomically. */
export const link = (from: string, to: string) => call<void>((done) => fs.link(from, to, done))

export const unlink = (file: string) => call<void>((done) => fs.unlink(file, done))

export const makeFolder = (folder: string) => call<void>((done) => fs.mkdir(folder, done))

/** Creates a folder and those above it, as far as they do not exist. */
export const makeFolders = (folder: string) => call<unknown>((done) => fs.mkdir(folder, { recursive: true }, done))

/** Removes a folder that is empty. */
export const removeFolder = (folder: string) => call<void>((done) => fs.rmdir(folder, done))

/** The path without symbolic links. */
export const realPath = (file: string) => call<string>((done) => fs.realpath.native(file, done))

/** What a folder holds: the name, and whether it is a file, a folder or a link (else neither). */
export interface Entry {
  readonly name: string
  readonly kind: "file" | "folder" | "link" | "other"
}

const toEntry = (entry: fs.Dirent): Entry => ({
  name: entry.name,
  kind: entry.isFile() ? "file" : entry.isDirectory() ? "folder" : entry.isSymbolicLink() ? "link" : "other"
})

/** All that a folder holds, in no order, or nothing where the folder itself is larger than `limit` bytes. */
export const readFolder = (
  folder: string,
  limit = Infinity
): Effect.Effect<ReadonlyArray<Entry> | undefined, SystemError> =>
  call<ReadonlyArray<Entry> | undefined>((done) =>
    fs.stat(folder, (error, stats) => {
      if (error !== null || stats.size > limit) return done(error, undefined)
      fs.readdir(folder, { withFileTypes: true }, (error, entries) => done(error, entries?.map(toEntry)))
    })
  )

/** Passes all that a folder holds to `visit`, in no order, without holding it. Half as fast as `readFolder`. */
export const visitFolder = (folder: string, visit: (entry: Entry) => void): Effect.Effect<void, SystemError> =>
  Effect.acquireUseRelease(
    call<fs.Dir>((done) => fs.opendir(folder, { bufferSize: 1024 }, done)),
    (dir) =>
      call<void>((done) => {
        const next = () =>
          dir.read((error, entry) => {
            if (error !== null || entry === null) return done(error, undefined)
            visit(toEntry(entry))
            next()
          })
        next()
      }),
    (dir) => Effect.ignore(call<void>((done) => dir.close(done)))
  )

export const flavor: Flavor = process.platform === "win32" ? "windows" : "posix"

export const dirname = (file: string): string => path.dirname(file)

export const resolve = (file: string): string => path.resolve(file)

export const { sep } = path

/** A small file whole, as text. */
export const readText = (file: string) => call<string>((done) => fs.readFile(file, "latin1", done))

export const readLink = (file: string) => call<string>((done) => fs.readlink(file, done))

export const hostname: string = os.hostname()

export const { pid } = process

/** Whether a process of this number runs here. One that belongs to somebody else does, though it takes no signal. */
export const isRunning = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM"
  }
}
