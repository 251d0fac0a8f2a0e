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
import * as FiberRef from "effect/FiberRef"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { type Begin, once } from "../../internal/once.js"
import * as Descriptors from "./descriptors.js"
import type { Flavor } from "./keyEncoding.js"

/** An error of the operating system: `code` is its name, such as `ENOENT`. */
export class SystemError extends Data.TaggedError("SystemError")<{
  readonly code: string
  readonly cause: NodeJS.ErrnoException
}> {}

export const isLinux: boolean = process.platform === "linux"

/** An open file. */
export type Descriptor = number

export type Stats = fs.BigIntStats

const toSystemError = (cause: NodeJS.ErrnoException): SystemError => {
  // What happened in a folder that is held names it by its descriptor.
  if (cause.path?.startsWith(descriptors) === true) {
    const named = (text: string) => text.replace(/\/proc\/self\/fd\/\d+/g, (path) => heldPaths.get(path) ?? path)
    Object.assign(cause, { path: named(cause.path), message: named(cause.message) })
  }
  return new SystemError({ code: cause.code ?? cause.name, cause })
}

const descriptors = "/proc/self/fd/"

/** The paths of folders that are held, by those of their descriptors. */
const heldPaths = new Map<string, string>()

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

// Kept here, since tests with fake timers replace them.
const later = globalThis.setImmediate
const { clearTimeout, setTimeout } = globalThis

/** Waits for other programs, in real time whatever the clock of the fiber says, in milliseconds. */
export const pause = (duration: number): Effect.Effect<void> =>
  Effect.async((resume) => {
    const timer = setTimeout(() => resume(Effect.void), duration)
    return Effect.sync(() => clearTimeout(timer))
  })

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

const isExhausted = hasCode(...Descriptors.exhausted)

/** Makes a call that needs a descriptor, and waits for one where there is none. */
const needingDescriptor = <A>(
  attempt: (isPatient: boolean) => Effect.Effect<A, SystemError>,
  purpose: Descriptors.Purpose = "call",
  restore?: Descriptors.Restore
): Effect.Effect<A, SystemError> =>
  Effect.uninterruptibleMask((own) => {
    const tryUntil = (until: Descriptors.Patience): Effect.Effect<A, SystemError> =>
      Effect.catchIf(attempt(Descriptors.isPatient(until)), isExhausted, (error) =>
        Descriptors.again(purpose, until, restore ?? own, tryUntil, Effect.fail(error)))
    return tryUntil(Descriptors.patient)
  })

/** Closes a file that was opened while descriptors are scarce, and returns the error that it counts as. */
const giveBack = (descriptor: Descriptor): NodeJS.ErrnoException => {
  fs.closeSync(descriptor)
  return Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" })
}

/** Opens a file; where descriptors are scarce, it is closed again, and removed if it is new. */
const openFile = (
  file: string,
  flags: number,
  mode: number,
  purpose: Descriptors.Purpose,
  restore?: Descriptors.Restore
) =>
  needingDescriptor(
    (isPatient) =>
      call<Descriptor>((done) =>
        fs.open(file, flags, mode, (error, descriptor) => {
          if (error) return done(error, descriptor)
          if (isPatient && Descriptors.isScarce(descriptor, purpose)) {
            const scarce = giveBack(descriptor)
            return (flags & O_EXCL) === 0 ? done(scarce, descriptor) : fs.unlink(file, () => done(scarce, descriptor))
          }
          Descriptors.opened()
          done(null, descriptor)
        })
      ),
    purpose,
    restore
  )

/**
 * Opens a file for reading, and passes it to `use`, which has to close it. These are callbacks, not effects: for a small file,
 * each effect between open and close costs a tenth of what the system does (bench row `small`).
 */
export const open = <A, E, R>(
  file: string,
  failed: (error: SystemError) => Effect.Effect<never, E>,
  use: (descriptor: Descriptor, resume: Resume<A, E, R>) => void
): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) => {
    const tryUntil = (until: Descriptors.Patience): Effect.Effect<A, E, R> =>
      Effect.async<A, E, R>((resume) => {
        const fail = (cause: NodeJS.ErrnoException) => {
          const error = toSystemError(cause)
          const failure = failed(error)
          resume(isExhausted(error) ? Descriptors.again("call", until, restore, tryUntil, failure) : failure)
        }
        submit(() =>
          fs.open(file, O_RDONLY | O_NONBLOCK, (error, descriptor) => {
            if (error) return fail(error)
            if (Descriptors.isScarce(descriptor, "call") && Descriptors.isPatient(until)) {
              return fail(giveBack(descriptor))
            }
            Descriptors.opened()
            use(descriptor, resume)
          })
        )
      })
    return tryUntil(Descriptors.patient)
  })

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
  Descriptors.closed()
}

/** Reads at `position` until `target` is full or the file ends, and returns the number of bytes. */
export const read = (
  descriptor: Descriptor,
  target: Uint8Array,
  position: number
): Effect.Effect<number, SystemError> => call((done) => readFully(descriptor, target, 0, position, done))

/** Like `read`, but continues with the outcome. */
export const readInto = (
  descriptor: Descriptor,
  target: Uint8Array,
  position: number,
  done: (outcome: Either.Either<number, SystemError>) => void
): void =>
  submit(() =>
    readFully(
      descriptor,
      target,
      0,
      position,
      (error, count) => done(error ? Either.left(toSystemError(error)) : Either.right(count))
    )
  )

/** Fills the arrays one after another from `position` on, or up to the end of the file; continues with the outcome. */
export const readBatch = (
  descriptor: Descriptor,
  arrays: ReadonlyArray<Uint8Array>,
  position: number,
  done: (outcome: Either.Either<number, SystemError>) => void
): void =>
  submit(() =>
    readAll(
      descriptor,
      arrays,
      0,
      position,
      (error, count) => done(error ? Either.left(toSystemError(error)) : Either.right(count))
    )
  )

const readAll = (
  descriptor: Descriptor,
  arrays: ReadonlyArray<Uint8Array>,
  filled: number,
  position: number,
  done: Callback<number>
): void => {
  if (arrays.length === 0) return done(null, filled)
  fs.readv(descriptor, arrays, position + filled, (error, count) => {
    if (error || count === 0) done(error, filled)
    else readAll(descriptor, dropBytes(arrays, count), filled + count, position, done)
  })
}

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
  needingDescriptor(() => call<string>((done) => fs.readFile(file, encoding, done)))

// Places

const pathOf = (descriptor: Descriptor): string => `${descriptors}${descriptor}`

const { O_DIRECTORY, O_NOFOLLOW } = fs.constants

// Opens a file only for its place: needs no permission to read, and waits for nothing. Node has no name for it.
const O_PATH = 0o10000000

/** Whether the system tells where open files are, and finds names in open folders. Deno has numbers of its own for them. */
const knowsPlaces: boolean = isLinux && (() => {
  try {
    const root = fs.openSync("/", O_PATH)
    const path = fs.readlinkSync(pathOf(root))
    fs.closeSync(root)
    return path === "/"
  } catch {
    return false
  }
})()

/**
 * The path of an open file, without links, or `undefined` where the system does not know it (also on Linux, where a process
 * has given up its privileges). The kernel has it in memory, so this does not wait.
 */
export const whereIs = (descriptor: Descriptor): string | undefined => {
  try {
    return knowsPlaces ? fs.readlinkSync(pathOf(descriptor)) : undefined
  } catch {
    return undefined
  }
}

/** The stats of a file, of what it links to if it is a link, and its path without links, see `whereIs`. */
export const look = (
  file: string
): Effect.Effect<{ readonly stats: Stats; readonly where: string | undefined }, SystemError> =>
  !knowsPlaces ?
    Effect.map(stat(file), (stats) => ({ stats, where: undefined })) :
    needingDescriptor(() =>
      Effect.flatMap(call<Descriptor>((done) => fs.open(file, O_PATH, done)), (descriptor) => {
        Descriptors.opened()
        const where = whereIs(descriptor)
        const stats = statNow(descriptor)
        closeNow(descriptor)
        return Either.map(stats, (stats) => ({ stats, where }))
      })
    )

/** A folder, and the paths of names in it. */
export interface Folder {
  /** Its path without links, see `whereIs`. */
  readonly where: string | undefined
  /** The path to reach it by. */
  readonly path: string
  readonly at: (name: string) => string
}

/** Whether Linux takes no path of this length (PATH_MAX). */
const isTooLong = (path: string): boolean => path.length * 3 >= 4096 && Buffer.byteLength(path) >= 4096

/** A folder by its path, which may lead elsewhere at any moment. */
export const folderAt = (path: string): Folder => ({ where: undefined, path, at: (name) => `${path}/${name}` })

/**
 * Holds a folder for the scope: names in it are in this very folder, whatever becomes of its path meanwhile. Where the system does
 * not know places, it is the folder by its path.
 */
export const holdFolder = (
  path: string,
  links: "follow" | "refuse",
  purpose: Descriptors.Purpose = "call",
  restore?: Descriptors.Restore
): Effect.Effect<Folder, SystemError, Scope.Scope> =>
  !knowsPlaces ? Effect.succeed(folderAt(path)) : Effect.map(
    held(path, openFile(path, O_PATH | O_DIRECTORY | (links === "follow" ? 0 : O_NOFOLLOW), 0, purpose, restore)),
    (descriptor) => folderOf(path, descriptor)
  )

/** A folder whose names are about to change, and what syncs them then. */
export interface Changing {
  readonly folder: Folder
  readonly sync: SyncNames
}

/** Like `holdFolder`; one descriptor does for the folder and for what syncs it, where it may be read. */
export const holdChanging = (path: string): Effect.Effect<Changing, SystemError, Scope.Scope> =>
  !knowsPlaces ? withSync(folderAt(path)) : Effect.catchIf(
    Effect.map(
      held(path, openFile(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0, "commit")),
      (descriptor): Changing => ({ folder: folderOf(path, descriptor), sync: syncNames(descriptor) })
    ),
    isForbidden,
    () => Effect.flatMap(holdFolder(path, "follow", "commit"), withSync)
  )

/** A folder that is held, with what syncs its names. */
export const withSync = (folder: Folder): Effect.Effect<Changing, SystemError, Scope.Scope> =>
  Effect.map(openFolder(folder.at(".")), (sync) => ({ folder, sync }))

const held = <R>(path: string, open: Effect.Effect<Descriptor, SystemError, R>) =>
  Effect.acquireRelease(
    Effect.tap(open, (descriptor) => {
      heldPaths.set(pathOf(descriptor), path)
    }),
    (descriptor) =>
      Effect.sync(() => {
        heldPaths.delete(pathOf(descriptor))
        closeNow(descriptor)
      })
  )

const folderOf = (path: string, descriptor: Descriptor): Folder => {
  const where = whereIs(descriptor)
  // What could not be found by its whole path must not be made.
  return where === undefined ? folderAt(path) : {
    where,
    path: pathOf(descriptor),
    at: (name) => isTooLong(`${path}/${name}`) ? `${path}/${name}` : `${pathOf(descriptor)}/${name}`
  }
}

// Writing

/** Creates a file to write, or fails with `EEXIST`. */
export const create = (file: string, mode: number, restore: Descriptors.Restore) =>
  openToWrite(file, O_WRONLY | O_CREAT | O_EXCL, mode, restore)

/** Opens a file to write more of it. */
export const reopen = (file: string, restore: Descriptors.Restore) =>
  openToWrite(file, O_WRONLY | O_NOFOLLOW, 0, restore)

const openToWrite = (file: string, flags: number, mode: number, restore: Descriptors.Restore) =>
  Effect.flatMap(
    FiberRef.get(Descriptors.isHolding),
    (isHolding) => openFile(file, flags, mode, isHolding ? "nested" : "save", restore)
  )

export const close = (descriptor: Descriptor) =>
  call<void>((done) =>
    fs.close(descriptor, (error) => {
      Descriptors.closed()
      done(error, undefined)
    })
  )

/** Writes the arrays one after another at `position`, all of them. */
export const write = (
  descriptor: Descriptor,
  data: ReadonlyArray<Uint8Array>,
  position: number
): Effect.Effect<void, SystemError> => call((done) => writeAll(descriptor, data, position, done))

const writeAll = (
  descriptor: Descriptor,
  data: ReadonlyArray<Uint8Array>,
  position: number,
  done: Callback<void>
): void => {
  fs.writev(descriptor, data, position, (error, written) => {
    const rest = error ? [] : dropBytes(data, written)
    if (rest.length === 0) done(error, undefined)
    else writeAll(descriptor, rest, position + written, done)
  })
}

const dropBytes = (data: ReadonlyArray<Uint8Array>, count: number): ReadonlyArray<Uint8Array> => {
  let left = count
  for (const [i, bytes] of data.entries()) {
    if (left < bytes.byteLength) return [bytes.subarray(left), ...data.slice(i + 1)]
    left -= bytes.byteLength
  }
  return []
}

/** Sets the time of the last change, in seconds since 1970; of a symbolic link, its own. */
export const setTime = (file: Descriptor | string, seconds: number) =>
  call<void>((done) =>
    typeof file === "string" ? fs.lutimes(file, seconds, seconds, done) : fs.futimes(file, seconds, seconds, done)
  )

/** Sets the permissions of a file. */
export const changeMode = (file: Descriptor | string, mode: number) =>
  call<void>((done) => typeof file === "string" ? fs.chmod(file, mode, done) : fs.fchmod(file, mode, done))

/** Sets owner and group of a file. */
export const changeOwner = (file: Descriptor | string, user: bigint, group: bigint) =>
  call<void>((done) =>
    typeof file === "string"
      ? fs.chown(file, Number(user), Number(group), done)
      : fs.fchown(file, Number(user), Number(group), done)
  )

/** Returns when the file, and what is needed to find its bytes again, is on the disk. */
export const sync = (descriptor: Descriptor) => call<void>((done) => fs.fsync(descriptor, done))

/** Returns when the bytes written so far are on the disk. */
export const syncData = (descriptor: Descriptor) => call<void>((done) => fs.fdatasync(descriptor, done))

/** A way to sync the names in a folder: it ends when they are on the disk. */
export type SyncNames = Effect.Effect<void, SystemError>

/**
 * Opens a folder for the scope, so that its names can be synced whatever happens meanwhile. Where that is not possible, there
 * is nothing to do: Windows opens no folders and keeps their names by itself, some file systems (CIFS, FUSE) do not sync
 * folders, and one without permission to read can be written all the same.
 */
const openFolder = (folder: string): Effect.Effect<SyncNames, SystemError, Scope.Scope> =>
  flavor === "windows" ? Effect.succeed(Effect.void) : Effect.acquireRelease(
    openFile(folder, O_RDONLY | O_NONBLOCK, 0, "commit"),
    (descriptor) => Effect.sync(() => closeNow(descriptor))
  ).pipe(
    Effect.map(syncNames),
    Effect.catchIf(isForbidden, () => Effect.succeed(Effect.void))
  )

const isForbidden = hasCode("EACCES", "EPERM")

const syncNames = (descriptor: Descriptor): SyncNames => Effect.catchIf(sync(descriptor), cannotSync, () => Effect.void)

const cannotSync = hasCode("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EBADF", "EISDIR", "EACCES", "EPERM")

/** Returns when the names in a folder are on the disk. */
export const syncFolder = (folder: string): Effect.Effect<void, SystemError> =>
  Effect.scoped(Effect.flatten(openFolder(folder)))

// Names

export const stat = (file: Descriptor | string) =>
  call<Stats>((done) =>
    typeof file === "string" ? fs.stat(file, { bigint: true }, done) : fs.fstat(file, { bigint: true }, done)
  )

/** Like `stat`, but of a symbolic link itself. */
export const lstat = (file: string) => call<Stats>((done) => fs.lstat(file, { bigint: true }, done))

/** Whether the file system of a file keeps the number of each inode for as long as the file exists. */
export const keepsInodes = (file: string): Effect.Effect<boolean> =>
  call<fs.StatsFs>((done) => fs.statfs(file, done)).pipe(
    Effect.map(({ type }) => !withoutInodes.has(type)),
    Effect.orElseSucceed(() => true)
  )

// From the headers of Linux: FUSE, CIFS, SMB, SMB2, 9P, FAT, exFAT, VirtualBox. These number files that they happen to know.
const withoutInodes = new Set([
  0x65735546,
  0xff534d42,
  0x517b,
  0xfe534d42,
  0x01021997,
  0x4d44,
  0x2011bab0,
  0x786f4256
])

/** The path without symbolic links. */
export const realPath = (file: string) => call<string>((done) => fs.realpath.native(file, done))

export const readLink = (file: string) => call<string>((done) => fs.readlink(file, done))

export const rename = (from: string, to: string) => call<void>((done) => fs.rename(from, to, done))

/** A second name for a file; fails with `EEXIST` where there is a file of that name, atomically. */
export const link = (from: string, to: string) => call<void>((done) => fs.link(from, to, done))

/** A symbolic link, or where there are none, a file with the text; fails with `EEXIST` where there is a file of that name. */
export const createText = (file: string, text: string): Effect.Effect<void, SystemError> =>
  Effect.catchIf(
    call<void>((done) => fs.symlink(text, file, done)),
    hasCode("EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL"),
    () => call<void>((done) => fs.writeFile(file, text, { flag: "wx" }, done))
  )

/** The text of what `createText` created. */
export const readCreatedText = (file: string): Effect.Effect<string, SystemError> =>
  Effect.catchIf(readLink(file), hasCode("EINVAL", "UNKNOWN"), () => readText(file))

export const unlink = (file: string) => call<void>((done) => fs.unlink(file, done))

// Folders

/** Creates a folder, if it does not exist; returns whether it did not. */
export const makeFolder = (folder: string): Effect.Effect<boolean, SystemError> =>
  Effect.catchIf(
    Effect.as(call<void>((done) => fs.mkdir(folder, done)), true),
    hasCode("EEXIST"),
    () => Effect.succeed(false)
  )

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
  needingDescriptor(() =>
    call<ReadonlyArray<Entry> | undefined>((done) =>
      fs.stat(folder, (error, stats) => {
        if (error || stats.size > limit) return done(error, undefined)
        fs.readdir(folder, { withFileTypes: true }, (error, entries) => done(error, entries?.map(toEntry)))
      })
    )
  )

/** Passes all entries of a folder to `visit`, unordered, without holding them in memory. Half as fast as `readFolder`. */
export const visitFolder = (folder: string, visit: (entry: Entry) => void): Effect.Effect<void, SystemError> =>
  Effect.acquireUseRelease(
    needingDescriptor(() => call<fs.Dir>((done) => fs.opendir(folder, { bufferSize: 1024 }, done))),
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

export const basename = (file: string): string => path.basename(file)

export const resolve = (...parts: ReadonlyArray<string>): string => path.resolve(...parts)

export const { sep } = path

export const hostname: string = os.hostname()

export const { pid } = process

/** The group that this process creates files for, where there are groups. */
export const groupOfProcess = (): bigint | undefined => {
  const group = process.getegid?.()
  return group === undefined ? undefined : BigInt(group)
}

/** The user that this process creates files for, where there are users. */
export const userOfProcess = (): bigint | undefined => {
  const user = process.geteuid?.()
  return user === undefined ? undefined : BigInt(user)
}

/** Whether a new file has the group of its folder, whatever the permissions of that. */
export const inheritsGroup: boolean = process.platform === "darwin" || process.platform === "freebsd"

/** Whether a process of this number runs here. One of another user does, though it takes no signal. */
export const isRunning = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM"
  }
}
