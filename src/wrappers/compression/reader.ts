/**
 * Reads objects as their users see them. What is read of a version of an object is read under its etag.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { copyOf, intoArray } from "../../internal/bytes.js"
import { asHead } from "../../internal/errors.js"
import type { LoadOptions, ObjectInfo, OpenedObject, StorageBackend, StreamOptions } from "../../StorageBackend.js"
import { checkLoad, openedBytes } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import * as ByteReader from "../../weights/safetensors/compressed/byteReader.js"
import type { Deflate } from "../../weights/safetensors/compressed/deflate.js"
import * as OriginalFile from "../../weights/safetensors/compressed/originalFile.js"
import * as Forms from "./forms.js"
import * as Gzip from "./gzip.js"
import type { Known, KnownForms } from "./knownForms.js"

type Opened = Omit<OpenedObject, "position">

type Bytes = Uint8Array<ArrayBuffer>

/** A version of an object, and where it starts, as far as that has been read. */
interface Looked extends Known {
  readonly key: string
  readonly beginning: Uint8Array
  readonly bypassCache: boolean | undefined
}

/** What is read of an object whose form is unknown before a range of it: enough for most headers. */
const firstReadSize = 64 * 1024

/** A larger range is read as a stream, so that it is decoded while it is on its way. */
const maxLoadSize = 4 * 1024 * 1024

export class Reader {
  constructor(
    private readonly inner: StorageBackend,
    private readonly deflate: Deflate,
    private readonly known: KnownForms
  ) {}

  readonly head = (key: string): Effect.Effect<ObjectInfo, E.HeadError> =>
    Effect.flatMap(this.inner.head(key), (info) => this.describe(info))

  /** The metadata of an object as its users see it, by one small request unless its form is known. */
  readonly describe = (info: ObjectInfo): Effect.Effect<ObjectInfo, E.HeadError> =>
    Effect.suspend(() => {
      const form = info.size === 0 ? Forms.plain : this.known.formOf(info.key, info.etag)
      return form !== undefined
        ? Effect.succeed(Forms.infoOf(info, form))
        : Effect.map(this.look(info.key, {}, Forms.beginningLength), (looked) =>
          // It may have been overwritten since.
          Forms.infoOf(looked.info.etag === info.etag ? info : looked.info, looked.form))
    }).pipe(asHead)

  readonly open = (key: string, options: StreamOptions): Effect.Effect<Opened, E.LoadError, Scope.Scope> =>
    options.range === undefined ? this.openWhole(key, options) : Effect.gen(this, function*() {
      const last = this.known.last(key)
      if (last?.form.kind === "plain") {
        const opened = yield* Effect.option(Effect.filterOrFail(
          this.inner.open(key, options),
          ({ info }) => info.etag === last.etag,
          () => new E.PreconditionFailed()
        ))
        if (Option.isSome(opened)) return opened.value
      }
      return yield* retryingChanges(
        options,
        Effect.flatMap(this.look(key, options, firstReadSize), (looked) => this.openRange(looked, options))
      )
    })

  readonly load = (key: string, options: LoadOptions): Effect.Effect<Bytes, E.LoadError> =>
    Effect.suspend(() => {
      const looking = retryingChanges(
        options,
        Effect.flatMap(this.look(key, options, firstReadSize), (looked) => this.loadVersion(looked, options.range))
      )
      const last = this.known.last(key)
      if (last === undefined || !this.canTrust(key, last, options)) return looking
      const { bypassCache, range } = options
      return Effect.catchTags(
        this.loadVersion({ ...last, key, beginning: new Uint8Array(0), bypassCache }, range),
        { PreconditionFailed: () => looking, InvalidRange: () => looking }
      )
    })

  /** The form of the object that exists now. */
  readonly formOf = (key: string, options: LoadOptions): Effect.Effect<Known, E.LoadError> =>
    Effect.suspend(() => {
      const last = this.known.last(key)
      return last !== undefined && options.ifMatch === last.etag
        ? Effect.succeed(last)
        : this.look(key, options, Forms.beginningLength)
    })

  /** Reads the first bytes of an object. */
  private look(
    key: string,
    { bypassCache, ifMatch, ifNoneMatch }: LoadOptions,
    length: number
  ): Effect.Effect<Looked & { readonly info: ObjectInfo }, E.LoadError> {
    const conditions = { bypassCache, ifMatch, ifNoneMatch }
    return this.inner.open(key, { ...conditions, range: ByteRange.make(0, length) }).pipe(
      Effect.flatMap((opened) => Effect.map(bytesOf(opened), (beginning) => ({ info: opened.info, beginning }))),
      // Of an empty object, no range is valid.
      Effect.catchTag(
        "InvalidRange",
        () => Effect.map(this.inner.open(key, conditions), ({ info }) => ({ info, beginning: new Uint8Array(0) }))
      ),
      Effect.scoped,
      Effect.map(({ beginning, info }) => {
        const known = this.known.put(info, Forms.formOf(beginning))
        return { ...known, info, key, beginning, bypassCache }
      })
    )
  }

  /** Whether a load can begin with what was known of the object: the etag, under which it reads, shows whether that holds. */
  private canTrust(key: string, last: Known, { bypassCache, ifMatch, ifNoneMatch, range }: LoadOptions): boolean {
    if (bypassCache === true || ifNoneMatch !== undefined || (ifMatch ?? last.etag) !== last.etag) return false
    if (last.form.kind !== "safetensors") return true
    // Of the header nothing would be read.
    const file = this.known.fileOf(key, last.etag)
    return file !== undefined && range !== undefined && "start" in range &&
      range.start >= file.original.header.byteLength
  }

  private openWhole(key: string, options: StreamOptions): Effect.Effect<Opened, E.LoadError, Scope.Scope> {
    return Effect.gen(this, function*() {
      const opened = yield* this.inner.open(key, options)
      const { info } = opened
      const form = info.size === 0 ? Forms.plain : this.known.formOf(key, info.etag)
      if (form?.kind === "plain") return opened
      const reader = yield* ByteReader.make(opened.bytes === undefined ? opened.stream : Stream.make(opened.bytes))
      const beginning = yield* reader.peek(Forms.beginningLength)
      const { bypassCache } = options
      const looked = { ...this.known.put(info, Forms.formOf(beginning)), key, beginning, bypassCache }
      if (looked.form.kind === "plain") {
        return opened.bytes === undefined ? { info, range: opened.range, stream: reader.rest } : opened
      }
      const seen = Forms.infoOf(info, looked.form)
      const range = { start: 0, endExclusive: seen.size }
      return { info: seen, range, stream: yield* this.decodeAll(looked, reader) }
    })
  }

  /** The object from all its bytes. */
  private decodeAll(
    looked: Looked,
    reader: ByteReader.ByteReader<E.LoadError, never, ArrayBuffer>
  ): Effect.Effect<Stream.Stream<Bytes, E.LoadError>, E.LoadError> {
    const { form, key, stored } = looked
    switch (form.kind) {
      case "plain":
        return Effect.succeed(reader.rest)
      case "escaped":
        return Effect.as(reader.take(Forms.escape.byteLength), reader.rest)
      case "gzip":
        return Effect.as(
          Gzip.checkSize(stored, form.size),
          Stream.fromEffect(
            Effect.flatMap(
              reader.take(stored),
              (file) => Effect.map(Gzip.decode(this.deflate, file, form.size), copyOf)
            )
          )
        )
      case "safetensors":
        return Effect.gen(this, function*() {
          const length = yield* orCorrupt(OriginalFile.headerLength(key, looked.beginning, stored))
          const header = yield* reader.take(length)
          const file = yield* this.openFile(looked, header)
          const range = { start: 0, endExclusive: form.size }
          return OriginalFile.stream(this.deflate, file, range, () => Effect.succeed(reader))
        })
    }
  }

  private openRange(looked: Looked & { readonly info: ObjectInfo }, options: StreamOptions) {
    return Effect.gen(this, function*() {
      const { beginning, form, key, stored } = looked
      const info = Forms.infoOf(looked.info, form)
      const range = yield* checkLoad(info, { range: options.range })
      if (form.kind === "plain" && (beginning.byteLength === stored || range.endExclusive <= beginning.byteLength)) {
        return openedBytes(info, range, copyOf(beginning, range.start, range.endExclusive))
      }
      if (form.kind === "plain") return yield* this.inner.open(key, { ...options, ifMatch: info.etag })
      return { info, range, stream: yield* this.streamRange(looked, range) }
    })
  }

  /** A range of one version, in one array. */
  private loadVersion(looked: Looked, wanted: ByteRange.ByteRange | undefined): Effect.Effect<Bytes, E.LoadError> {
    const { beginning, bypassCache, etag, form, key, stored } = looked
    if (form.kind === "plain") {
      return stored > beginning.byteLength || stored === 0
        ? this.inner.load(key, { range: wanted, ifMatch: etag, bypassCache })
        : Effect.map(
          checkLoad({ size: stored, etag }, { range: wanted }),
          ({ endExclusive, start }) => copyOf(beginning, start, endExclusive)
        )
    }
    const size = form.kind === "escaped" ? stored - Forms.escape.byteLength : form.size
    return Effect.gen(this, function*() {
      const range = yield* checkLoad({ size, etag }, { range: wanted })
      return yield* intoArray(yield* this.streamRange(looked, range), range.endExclusive - range.start)
    })
  }

  /** A range of one version that is not plain. */
  private streamRange(
    looked: Looked,
    range: ByteRange.ResolvedRange
  ): Effect.Effect<Stream.Stream<Bytes, E.LoadError>, E.LoadError> {
    const { form, stored } = looked
    const { endExclusive, start } = range
    switch (form.kind) {
      case "plain":
        return Effect.succeed(this.read(looked, range))
      case "escaped": {
        const { byteLength } = Forms.escape
        return Effect.succeed(
          this.read(looked, { start: start + byteLength, endExclusive: endExclusive + byteLength })
        )
      }
      case "gzip":
        return Effect.as(
          Gzip.checkSize(stored, form.size),
          this.read(looked, { start: 0, endExclusive: stored }).pipe(
            (stream) => Stream.fromEffect(intoArray(stream, stored)),
            Stream.mapEffect((file) => Gzip.decode(this.deflate, file, form.size)),
            Stream.map((object) => copyOf(object, start, endExclusive))
          )
        )
      case "safetensors":
        return Effect.map(
          this.fileOf(looked),
          (file) => OriginalFile.stream(this.deflate, file, range, (range) => ByteReader.make(this.read(looked, range)))
        )
    }
  }

  /** A range of the bytes that are stored. */
  private read(
    { bypassCache, etag, key }: Looked,
    { endExclusive, start }: ByteRange.ResolvedRange
  ): Stream.Stream<Bytes, E.LoadError> {
    const options = { range: ByteRange.make(start, endExclusive), ifMatch: etag, bypassCache }
    return endExclusive - start <= maxLoadSize
      ? Stream.fromEffect(this.inner.load(key, options))
      : Stream.unwrapScoped(Effect.map(this.inner.open(key, options), ({ stream }) => stream))
  }

  /** The header of a compressed file. */
  private fileOf(looked: Looked): Effect.Effect<OriginalFile.CompressedFile, E.LoadError> {
    return Effect.gen(this, function*() {
      const { beginning, etag, key, stored } = looked
      const file = this.known.fileOf(key, etag)
      if (file !== undefined) return file
      const start = beginning.byteLength >= 8
        ? beginning
        : yield* intoArray(this.read(looked, { start: 0, endExclusive: Forms.beginningLength }), Forms.beginningLength)
      const length = yield* orCorrupt(OriginalFile.headerLength(key, start, stored))
      const header = length <= start.byteLength
        ? start.subarray(0, length)
        : yield* intoArray(this.read(looked, { start: 0, endExclusive: length }), length)
      return yield* this.openFile(looked, header)
    })
  }

  private openFile(
    { etag, form, key, stored }: Looked,
    header: Uint8Array
  ): Effect.Effect<OriginalFile.CompressedFile, E.CorruptObject> {
    return Effect.gen(this, function*() {
      const file = yield* orCorrupt(OriginalFile.open(this.deflate, key, header, stored))
      if (file === undefined || form.kind !== "safetensors" || file.original.size !== form.size) {
        return yield* new E.CorruptObject({
          problem: "frame",
          reason: "the header of the compressed file has two sizes"
        })
      }
      this.known.putFile(key, etag, file)
      return file
    })
  }
}

const bytesOf = ({ bytes, range, stream }: OpenedObject): Effect.Effect<Uint8Array, E.LoadError> =>
  bytes === undefined ? intoArray(stream, range.endExclusive - range.start) : Effect.succeed(bytes)

const orCorrupt = <A>(
  effect: Effect.Effect<A, { readonly message: string }>
): Effect.Effect<A, E.CorruptObject> =>
  Effect.mapError(effect, ({ message }) => new E.CorruptObject({ problem: "frame", reason: message }))

/** Begins again where the object is overwritten between two requests, unless the caller wants a certain version. */
export const retryingChanges = <A, R>(
  { ifMatch }: LoadOptions,
  effect: Effect.Effect<A, E.LoadError, R>
): Effect.Effect<A, E.LoadError, R> =>
  ifMatch === undefined
    ? Effect.retry(effect, { times: 3, while: ({ _tag }) => _tag === "PreconditionFailed" })
    : effect
