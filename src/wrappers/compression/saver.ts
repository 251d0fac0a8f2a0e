/**
 * Saves objects in the smallest of their forms.
 *
 * - A safetensors file is compressed where that makes it smaller.
 * - Another object is gzipped where its beginning shows that this makes it smaller.
 * - An object that begins like one of the forms is escaped, so that its readers get what was saved.
 *
 * What is compressed has to be read before its size is known: in memory up to a limit. A larger safetensors file waits in the
 * scratch storage; without one, and for anything else, it is saved as it is.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { unexpected } from "../../internal/errors.js"
import { withSource } from "../../internal/source.js"
import type * as Storage from "../../Storage.js"
import type { ObjectInfo, SaveData, SaveOptions, StorageBackend } from "../../StorageBackend.js"
import type * as E from "../../StorageError.js"
import * as ByteReader from "../../weights/safetensors/compressed/byteReader.js"
import type { Deflate } from "../../weights/safetensors/compressed/deflate.js"
import * as OriginalFile from "../../weights/safetensors/compressed/originalFile.js"
import * as Forms from "./forms.js"
import * as Gzip from "./gzip.js"
import type { KnownForms } from "./knownForms.js"

/** Where the larger safetensors files wait, and how many bytes of a save are held in memory. */
export interface Settings {
  readonly buffer: number
  readonly scratch?: Storage.Service | undefined
}

/** The start of an object that shows whether gzip makes it smaller. */
const sampleLength = 64 * 1024

/** Smaller objects are not worth the time. */
const minLength = 512

/** What gzip has to make of an object: weights of other formats stay as they are, so that their ranges can be read. */
const maxRatio = 0.7

export class Saver {
  constructor(
    private readonly inner: StorageBackend,
    private readonly deflate: Deflate,
    private readonly known: KnownForms,
    private readonly settings: Settings
  ) {}

  readonly save = (key: string, data: SaveData, options: SaveOptions): Effect.Effect<ObjectInfo, E.SaveError> =>
    data instanceof Uint8Array ? this.saveBytes(key, data, options) : Effect.scoped(this.saveStream(key, data, options))

  private saveStream(
    key: string,
    data: Stream.Stream<Uint8Array>,
    options: SaveOptions
  ): Effect.Effect<ObjectInfo, E.SaveError, Scope.Scope> {
    return Effect.gen(this, function*() {
      const { buffer, scratch } = this.settings
      const reader = yield* ByteReader.make(data)
      const beginning = yield* reader.peek(Math.min(sampleLength, buffer))
      if (Forms.formOf(beginning).kind !== "plain") return yield* this.saveEscaped(key, reader.rest, options)
      const isFile = OriginalFile.mayBeFile(beginning)
      if (!isFile && !(yield* this.isWorthGzip(beginning))) return yield* this.savePlain(key, reader.rest, options)
      const start = yield* reader.take(buffer + 1)
      if (start.byteLength <= buffer) return yield* this.saveBytes(key, start, options)
      const whole = Stream.concat(Stream.make(start), reader.rest)
      if (isFile && scratch !== undefined) return yield* this.saveByScratch(scratch, key, whole, options)
      if (isFile) {
        yield* Effect.logWarning(
          `${
            JSON.stringify(key)
          } is stored as it is, since it is larger than ${buffer} bytes; give StorageCompression the option ` +
            "scratch, or a larger buffer"
        )
      }
      return yield* this.savePlain(key, whole, options)
    })
  }

  private saveBytes(key: string, bytes: Uint8Array, options: SaveOptions): Effect.Effect<ObjectInfo, E.SaveError> {
    return Effect.gen(this, function*() {
      if (Forms.formOf(bytes).kind !== "plain") return yield* this.saveEscaped(key, Stream.make(bytes), options)
      const file = OriginalFile.mayBeFile(bytes)
        ? yield* OriginalFile.encode(this.deflate, key, bytes.byteLength, {
          header: (length) => Effect.succeed(bytes.subarray(0, length)),
          read: (start) => Stream.make(bytes.subarray(start))
        })
        : undefined
      if (file !== undefined && file.size < bytes.byteLength) {
        return yield* this.saveFile(key, file, bytes.byteLength, options)
      }
      if (yield* this.isWorthGzip(bytes.subarray(0, sampleLength))) {
        const pieces = yield* Gzip.encode(this.deflate, bytes)
        const size = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0)
        if (size < maxRatio * bytes.byteLength) {
          const data = Stream.fromChunk(Chunk.unsafeFromArray(pieces))
          const form: Forms.Form = { kind: "gzip", size: bytes.byteLength }
          return yield* this.saveAs(form, key, data, { ...options, size })
        }
      }
      return yield* this.savePlain(key, bytes, options)
    })
  }

  /** A safetensors file that waits in the scratch storage while it is compressed. */
  private saveByScratch(
    scratch: Storage.Service,
    key: string,
    data: Stream.Stream<Uint8Array>,
    options: SaveOptions
  ): Effect.Effect<ObjectInfo, E.SaveError, Scope.Scope> {
    return Effect.gen(this, function*() {
      const name = `surfing-weights-${crypto.randomUUID()}`
      yield* Effect.addFinalizer(() => Effect.ignore(scratch.remove(name)))
      const { etag, size } = yield* scratch.save(name, data)
      const read = (start: number) => scratch.stream(name, { range: ByteRange.from(start), ifMatch: etag })
      const file = yield* OriginalFile.encode(this.deflate, key, size, {
        header: (length) => scratch.load(name, { range: ByteRange.make(0, length), ifMatch: etag }),
        read
      })
      return file !== undefined && file.size < size
        ? yield* this.saveFile(key, file, size, options)
        : yield* withSource(read(0), (data) => this.savePlain(key, data, options))
    }).pipe(
      Effect.catchTags({
        ObjectNotFound: unexpected,
        ObjectNotModified: unexpected,
        InvalidRange: unexpected
      })
    )
  }

  private saveFile<Err extends E.StorageError>(
    key: string,
    { bytes, size }: OriginalFile.EncodedFile<Err>,
    original: number,
    options: SaveOptions
  ): Effect.Effect<ObjectInfo, E.SaveError | E.CorruptObject | Err> {
    return withSource(
      bytes,
      (data) => this.saveAs({ kind: "safetensors", size: original }, key, data, { ...options, size })
    )
  }

  private saveEscaped(key: string, data: Stream.Stream<Uint8Array>, options: SaveOptions) {
    const size = options.size === undefined ? undefined : options.size + Forms.escape.byteLength
    const escaped = Stream.concat(Stream.make(Forms.escape), data)
    return this.saveAs({ kind: "escaped" }, key, escaped, { ...options, size })
  }

  private savePlain(key: string, data: SaveData, options: SaveOptions) {
    return this.saveAs(Forms.plain, key, data, options)
  }

  private saveAs(
    form: Forms.Form,
    key: string,
    data: SaveData,
    options: SaveOptions
  ): Effect.Effect<ObjectInfo, E.SaveError> {
    return Effect.map(this.inner.save(key, data, options), (info) => {
      this.known.put(info, form)
      return Forms.infoOf(info, form)
    })
  }

  private isWorthGzip(sample: Uint8Array): Effect.Effect<boolean> {
    return sample.byteLength < minLength
      ? Effect.succeed(false)
      : Effect.map(
        this.deflate.deflate(sample, "repetitions"),
        (coded) => coded.byteLength < maxRatio * sample.byteLength
      )
  }
}
