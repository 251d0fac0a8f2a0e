/**
 * The one door to `node:fs` (which Node, Bun and Deno have): each call as an effect that fails with the system's own error.
 * `@effect/platform`'s `FileSystem` has no links, no fsync of a folder, no times finer than a millisecond and no error codes,
 * and reads at a quarter of the speed.
 *
 * The system cannot cancel a call that it has begun, so no call can be interrupted: when a file is closed, nothing reads or
 * writes it any more.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { type Begin, once } from "../../internal/once.js"
import type { Flavor } from "./keyEncoding.js"

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

/** Whether an effect failed with this error of the system. */
export const hasCode = (...codes: ReadonlyArray<string>) => ({ code }: SystemError): boolean => codes.includes(code)

// Calls

type Callback<A> = (error: NodeJS.ErrnoException | null | undefined, value: A) => void

const call = <A>(run: (done: Callback<A>) => void): Effect.Effect<A, SystemError> =>
  asynchronous<A, SystemError>((resume) =>
    run((error, value) => resume(error ? Effect.fail(toSystemError(error)) : Effect.succeed(value)))
  )

const asynchronous = <A, E>(begin: Begin<A, E>): Effect.Effect<A, E> =>
  // The other way round, `Effect.uninterruptible` would refer to `begin` in a function of its own (see `once`).
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

// Kept here, since tests with fake timers replace it.
const later = globalThis.setImmediate

let submitted: Array<() => void> = []

/**
 * Calls are made together, once the event loop has dealt with what has come in: a call by itself finds the threads of the
 * pool asleep, and to wake one costs as much as to read a small file (bench row `small`).
 */
const submit = (run: () => void): void => {
  if (submitted.push(run) === 1) later(flush)
}

const flush = (): void => {
  const runs = submitted
  submitted = []
  for (const run of runs) run()
}

// Reading

const { O_CREAT, O_EXCL, O_RDONLY, O_WRONLY } = fs.constants

// Without it, opening a pipe without a writer would wait forever. Windows has neither.
const O_NONBLOCK: number = fs.constants.O_NONBLOCK ?? 0

/** Ends the use of an open file, and continues with the effect, which is uninterruptible unless it says otherwise. */
export type Resume<A, E, R> = (next: Effect.Effect<A, E, R>) => void

/**
 * Opens a file for reading, and passes it to `use`, which has to close it. These are callbacks, not effects: for a small file,
 * each effect between open and close costs a tenth of what the system does (bench row `small`).
 */
export const open = <A, E, R>(
  file: string,
  failed: (error: SystemError) => Effect.Effect<never, E>,
  use: (descriptor: Descriptor, resume: Resume<A, E, R>) => void
): Effect.Effect<A, E, R> =>
  Effect.uninterruptible(
    Effect.async<A, E, R>((resume) =>
      submit(() =>
        fs.open(file, O_RDONLY | O_NONBLOCK, (error, descriptor) => {
          if (error) resume(failed(toSystemError(error)))
          else use(descriptor, resume)
        })
      )
    )
  )

/** The stats of an open file. The system has them in memory since it opened the file, so this does not wait. */
export const statNow = (descriptor: Descriptor): Either.Either<Stats, SystemError> =>
  Either.try({
    try: () => fs.fstatSync(descriptor, { bigint: true }),
    catch: (error) => toSystemError(error instanceof Error ? error : new Error(String(error)))
  })

/** Closes a file that was only read: nothing is left to be written, so this does not wait. */
export const closeNow = (descriptor: Descriptor): void => {
  try {
    fs.closeSync(descriptor)
  } catch {
    // What was read is known, and the descriptor is free either way.
  }
}

/** Reads at `position` until `target` is full or the file ends, and returns the number of bytes. */
export const read = (
  descriptor: Descriptor,
  target: Uint8Array,
  position: number
): Effect.Effect<number, SystemError> => call((done) => readFully(descriptor, target, 0, position, done))

/** Reads, closes the file, and then continues with the outcome. */
export const readAndClose = (
  descriptor: Descriptor,
  target: Uint8Array,
  position: number,
  done: (outcome: Either.Either<number, SystemError>) => void
): void =>
  submit(() =>
    readFully(descriptor, target, 0, position, (error, count) => {
      closeNow(descriptor)
      done(error ? Either.left(toSystemError(error)) : Either.right(count))
    })
  )

const readFully = (
  descriptor: Descriptor,
  target: Uint8Array,
  filled: number,
  position: number,
  done: Callback<number>
): void => {
  if (filled === target.byteLength) return done(null, filled)
  fs.read(descriptor, target, filled, target.byteLength - filled, position + filled, (error, count) => {
    if (error || count === 0) done(error, filled)
    else readFully(descriptor, target, filled + count, position, done)
  })
}

/** A small file whole, as text. */
export const readText = (file: string, encoding: "latin1" | "utf8" = "utf8") =>
  call<string>((done) => fs.readFile(file, encoding, done))

const descriptors = "/proc/self/fd"

const tellsWhere: boolean = fs.existsSync(descriptors)

/**
 * The path of an open file, without links, or `undefined` where the system does not know it (also on Linux, where a process
 * has given up its privileges). The kernel has it in memory, so this does not wait.
 */
export const whereIs = (descriptor: Descriptor): string | undefined => {
  try {
    return tellsWhere ? fs.readlinkSync(`${descriptors}/${descriptor}`) : undefined
  } catch {
    return undefined
  }
}

// Writing

/** Creates a file to write, or fails with `EEXIST`. */
export const create = (file: string) => call<Descriptor>((done) => fs.open(file, O_WRONLY | O_CREAT | O_EXCL, done))

export const close = (descriptor: Descriptor) => call<void>((done) => fs.close(descriptor, done))

/** Writes the arrays one after another at `position`, all of them. */
export const write = (
  descriptor: Descriptor,
  data: ReadonlyArray<Uint8Array>,
  position: number
): Effect.Effect<void, SystemError> =>
  Effect.flatMap(
    call<number>((done) => fs.writev(descriptor, data, position, done)),
    (written) => {
      const rest = dropBytes(data, written)
      return rest.length === 0 ? Effect.void : write(descriptor, rest, position + written)
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

/** Sets the time of the last change, in seconds since 1970. */
export const setTime = (file: Descriptor | string, seconds: number) =>
  call<void>((done) =>
    typeof file === "string" ? fs.utimes(file, seconds, seconds, done) : fs.futimes(file, seconds, seconds, done)
  )

/** Returns when the file, and what is needed to find its bytes again, is on the disk. */
export const sync = (descriptor: Descriptor) => call<void>((done) => fs.fsync(descriptor, done))

/** Returns when the bytes written so far are on the disk. */
export const syncData = (descriptor: Descriptor) => call<void>((done) => fs.fdatasync(descriptor, done))

/** The same as `sync`, of a file that is not open. */
const syncFile = (file: string): Effect.Effect<void, SystemError> =>
  open(
    file,
    Effect.fail,
    (descriptor, resume) => resume(Effect.ensuring(sync(descriptor), Effect.ignore(close(descriptor))))
  )

/** Returns when the names in a folder are on the disk. Windows opens no folders, and keeps their names by itself. */
export const syncFolder = (folder: string): Effect.Effect<void, SystemError> =>
  flavor === "windows" ? Effect.void : syncFile(folder)

// Names

export const stat = (file: Descriptor | string) =>
  call<Stats>((done) =>
    typeof file === "string" ? fs.stat(file, { bigint: true }, done) : fs.fstat(file, { bigint: true }, done)
  )

/** Like `stat`, but of a symbolic link itself. */
export const lstat = (file: string) => call<Stats>((done) => fs.lstat(file, { bigint: true }, done))

/** The path without symbolic links. */
export const realPath = (file: string) => call<string>((done) => fs.realpath.native(file, done))

export const readLink = (file: string) => call<string>((done) => fs.readlink(file, done))

export const rename = (from: string, to: string) => call<void>((done) => fs.rename(from, to, done))

/** A second name for a file; fails with `EEXIST` where there is a file of that name, atomically. */
export const link = (from: string, to: string) => call<void>((done) => fs.link(from, to, done))

export const unlink = (file: string) => call<void>((done) => fs.unlink(file, done))

// Folders

/** Creates a folder, if it does not exist. */
export const makeFolder = (folder: string): Effect.Effect<void, SystemError> =>
  Effect.catchIf(call<void>((done) => fs.mkdir(folder, done)), hasCode("EEXIST"), () => Effect.void)

/** Creates a folder and those above it, if they do not exist. */
export const makeFolders = (folder: string) => call<unknown>((done) => fs.mkdir(folder, { recursive: true }, done))

/** Removes a folder that is empty. */
export const removeFolder = (folder: string) => call<void>((done) => fs.rmdir(folder, done))

/** A name in a folder, and what it is. */
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
      if (error || stats.size > limit) return done(error, undefined)
      fs.readdir(folder, { withFileTypes: true }, (error, entries) => done(error, entries?.map(toEntry)))
    })
  )

/** Passes all entries of a folder to `visit`, unordered, without holding them in memory. Half as fast as `readFolder`. */
export const visitFolder = (folder: string, visit: (entry: Entry) => void): Effect.Effect<void, SystemError> =>
  Effect.acquireUseRelease(
    call<fs.Dir>((done) => fs.opendir(folder, { bufferSize: 1024 }, done)),
    (dir) =>
      call<void>((done) => {
        const next = () =>
          dir.read((error, entry) => {
            if (error || entry === null) return done(error, undefined)
            visit(toEntry(entry))
            next()
          })
        next()
      }),
    (dir) => Effect.ignore(call<void>((done) => dir.close(done)))
  )

// The system

export const flavor: Flavor = process.platform === "win32" ? "windows" : "posix"

export const dirname = (file: string): string => path.dirname(file)

export const resolve = (file: string): string => path.resolve(file)

export const { sep } = path

export const hostname: string = os.hostname()

export const { pid } = process

/** Whether a process of this number runs here. One of another user does, though it takes no signal. */
export const isRunning = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM"
  }
}
