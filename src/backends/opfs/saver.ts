/**
 * Saves, copies and moves objects: all but a plain move write a temporary file, and give it the name of the object in one step.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { concat, copyOf } from "../../internal/bytes.js"
import { withPlace } from "../../internal/errors.js"
import { forEachChunk } from "../../internal/pulling.js"
import * as StorageBackend from "../../StorageBackend.js"
import type * as E from "../../StorageError.js"
import type { FileHandle } from "./browser.js"
import { type Directory, exclusively, existing, find, intact, locate } from "./directory.js"
import { call, FileSystemError, isAborted, isUnreadable, writeFailed } from "./errors.js"
import * as Header from "./header.js"
import { remove } from "./remover.js"
import * as TemporaryFiles from "./temporaryFiles.js"

/** Small chunks are written together, in bytes: each write is a call to another process. */
const writeSize = 1024 * 1024

/** How much of an array, or of a file that is copied, is written at once, in bytes: an interrupted save waits for that. */
const largeWrite = 16 * 1024 * 1024

/** How often an object is copied again that is replaced meanwhile. */
const tries = 10

/** The methods of a backend that save objects. */
export const saver = (
  directory: Directory
): Pick<StorageBackend.StorageBackend, "save" | "copy" | "move"> => ({
  save: (key, data, options) =>
    TemporaryFiles.withFile(directory, (file) =>
      Effect.gen(function*() {
        // Rather than after all of it was written.
        yield* check(directory, key, options)
        const info = yield* writing(key, file, options.attributes, (write) => writeData(data, write))
        return yield* commit(directory, file, info, options)
      })).pipe(Effect.catchTag("FileSystemError", writeFailed)),
  copy: (from, to, options) => copy(directory, from, to, options),
  move: (from, to, options) =>
    options.attributes === undefined
      ? rename(directory, from, to, options)
      : Effect.zipLeft(copy(directory, from, to, options), remove(directory, from, {}))
})

const copy = (
  directory: Directory,
  from: string,
  to: string,
  { attributes, ifNoneMatch }: StorageBackend.CopyOptions,
  left = tries
): Effect.Effect<StorageBackend.ObjectInfo, E.CopyError> =>
  TemporaryFiles.withFile(directory, (file) =>
    Effect.gen(function*() {
      const source = yield* Effect.flatMap(find(directory, from), intact)
      yield* about(to, check(directory, to, { ifNoneMatch }))
      const info = yield* writing(
        to,
        file,
        attributes ?? source.info.attributes,
        (write) => writePieces(source.file, source.start, source.file.size, write)
      )
      return yield* about(to, commit(directory, file, info, { ifNoneMatch }))
    })).pipe(
      Effect.catchIf(
        (error) => error._tag === "FileSystemError",
        (error) =>
          isUnreadable(error) && left > 0
            ? copy(directory, from, to, { attributes, ifNoneMatch }, left - 1)
            : writeFailed(error)
      )
    )

/** A move that writes nothing. */
const rename = (directory: Directory, from: string, to: string, options: StorageBackend.CopyOptions) =>
  Effect.gen(function*() {
    const { handle, info } = yield* find(directory, from)
    yield* about(to, check(directory, to, options))
    yield* install(directory, to, handle)
    return { ...info, key: to }
  }).pipe(
    Effect.uninterruptible,
    exclusively(directory, from, to),
    Effect.catchTag("FileSystemError", writeFailed)
  )

/** Writes the next bytes of an object. */
type Write = (data: Blob | Uint8Array<ArrayBuffer>, size: number) => Effect.Effect<void, FileSystemError>

/** Writes a file, and returns the metadata of the object. */
const writing = <E>(
  key: string,
  file: FileHandle,
  attributes: StorageBackend.Attributes | undefined,
  body: (write: Write) => Effect.Effect<void, E>
): Effect.Effect<StorageBackend.ObjectInfo, E | FileSystemError> =>
  Effect.suspend(() => {
    const etag = crypto.randomUUID()
    const header = new Header.NewHeader({ etag, attributes })
    let end = header.length
    return Effect.acquireUseRelease(
      call(() => file.createWritable()),
      (writer) =>
        Effect.gen(function*() {
          yield* body((data, size) =>
            Effect.suspend(() => {
              const position = end
              end += size
              return call(() => writer.write({ type: "write", position, data }))
            })
          )
          const data = header.bytes(end - header.length)
          yield* call(() => writer.write({ type: "write", position: 0, data }))
          yield* Effect.uninterruptible(call(() => writer.close()))
          const { lastModified } = yield* call(() => file.getFile())
          return { key, size: end - header.length, lastModified: new Date(lastModified), etag, attributes }
        }),
      (writer, exit) => Exit.isSuccess(exit) ? Effect.void : Effect.ignore(call(() => writer.abort()))
    ).pipe(
      Effect.tapError((error) =>
        error instanceof FileSystemError && isAborted(error) ? makeRoom(file, end) : Effect.void
      )
    )
  })

/** Fails where the browser does not grant a file so much space; it sends no bytes that could fail otherwise. */
const makeRoom = (file: FileHandle, size: number): Effect.Effect<void, FileSystemError> =>
  Effect.acquireUseRelease(
    call(() => file.createWritable()),
    (writer) => call(() => writer.truncate(size)),
    (writer) => Effect.ignore(call(() => writer.abort()))
  )

const writeData = (data: StorageBackend.SaveData, write: Write): Effect.Effect<void, FileSystemError> => {
  if (data instanceof Uint8Array) {
    const own = isUnshared(data) ? data : copyOf(data)
    return writePieces(own, 0, own.byteLength, write)
  }
  return Effect.suspend(() => {
    let pieces: Array<Uint8Array> = []
    let size = 0
    const flush = Effect.suspend(() => {
      const [first] = pieces
      const bytes = first !== undefined && pieces.length === 1 && isUnshared(first) ? first : concat(pieces)
      pieces = []
      size = 0
      return write(bytes, bytes.byteLength)
    })
    return Effect.zipRight(
      forEachChunk(data, (chunk) => {
        const isLarge = chunk.byteLength >= writeSize
        // The array may be written again once this effect has ended.
        pieces.push(isLarge ? chunk : copyOf(chunk))
        size += chunk.byteLength
        return isLarge || size >= writeSize ? flush : Effect.void
      }),
      Effect.suspend(() => size > 0 ? flush : Effect.void)
    )
  })
}

const isUnshared = (bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> => bytes.buffer instanceof ArrayBuffer

/** Writes a part of an array or a file, piece by piece. */
const writePieces = (
  data: Blob | Uint8Array<ArrayBuffer>,
  start: number,
  end: number,
  write: Write
): Effect.Effect<void, FileSystemError> =>
  Effect.suspend(() => {
    if (start === end) return Effect.void
    const next = Math.min(start + largeWrite, end)
    const piece = data instanceof Uint8Array ? data.subarray(start, next) : data.slice(start, next)
    return Effect.zipRight(write(piece, next - start), writePieces(data, next, end, write))
  })

/** Gives a file the name of its object, if the preconditions hold. */
const commit = (
  directory: Directory,
  file: FileHandle,
  info: StorageBackend.ObjectInfo,
  options: Conditions
) =>
  check(directory, info.key, options).pipe(
    Effect.zipRight(install(directory, info.key, file)),
    Effect.as(info),
    Effect.uninterruptible,
    exclusively(directory, info.key)
  )

type Conditions = Pick<StorageBackend.SaveOptions, "ifMatch" | "ifNoneMatch">

/** Fails unless the preconditions hold now. */
const check = (directory: Directory, key: string, options: Conditions) =>
  options.ifMatch === undefined && options.ifNoneMatch === undefined
    ? Effect.void
    : Effect.flatMap(existing(directory, key), (info) => StorageBackend.checkSave(info, options))

const install = (directory: Directory, key: string, file: FileHandle): Effect.Effect<void, FileSystemError> =>
  Effect.flatMap(locate(directory, key, true), ({ folder, name }) => call(() => file.move(folder, name)))

/** A failure about the new key of a copy. */
const about = <A, Err extends E.StorageError>(
  key: string,
  effect: Effect.Effect<A, Err | FileSystemError>
): Effect.Effect<A, Err | FileSystemError> =>
  Effect.mapError(effect, (error) => error._tag === "FileSystemError" ? error : withPlace(error, { key }))
