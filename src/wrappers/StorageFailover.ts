/**
 * A primary storage and its backups, which hold the same objects. What reads goes to the first storage that is up; what
 * writes goes to the primary, or to all.
 *
 * - A read that fails because the storage is down (`isDown`, unless `when` says otherwise) goes on to the next. Any
 *   other failure is an answer, from a backup as from the primary: also that there is no such object. A backup that
 *   cannot do a thing at all is passed by. Where every storage has failed, the failure is that of the primary.
 * - A storage that has failed so several times in a row is paused: reads pass it by, at no cost. When the pause is
 *   over, one operation tries it while the others still pass it by. A read for which nothing else is left tries a paused
 *   storage all the same.
 * - A stream that breaks goes on with its next byte on another storage where the object is provably the same there: by
 *   its checksum, or by an etag that S3 computed of the bytes. Where it is not, the stream fails, and never joins the
 *   bytes of two objects. A listing goes on elsewhere only if nothing of it has come.
 * - Each storage has etags of its own: `ifMatch` with an etag of the primary is `PreconditionFailed` on a backup, and a
 *   save with the etag of a backup is so on the primary.
 *
 * Retries belong inside, around each storage: one that is retried for three minutes fails over after three minutes. A
 * bucket that may be down when the app starts needs `verifyBucket: false`.
 *
 * With `writes: "primary"` something else brings the objects to the backups. With `"all"` each write goes to the
 * primary under the conditions given, and then to every backup without: bytes are saved there again, and what was
 * streamed, copied or moved is read back from the primary. A backup that lacks a write would later be read as if it
 * were current, so a write fails where one backup does, when all were tried; the primary then has it. A backup also
 * lacks a write that is interrupted after the primary has taken it. Writes of one key through one failover keep their
 * order on every storage; those of several processes at once may not.
 *
 * @module StorageFailover
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import { sameContent } from "../internal/content.js"
import { Foreign } from "../internal/foreign.js"
import * as Locks from "../internal/keyedLock.js"
import * as Storage from "../Storage.js"
import type { LoadOptions, ObjectInfo, OpenedObject, SaveOptions, StorageBackend } from "../StorageBackend.js"
import * as E from "../StorageError.js"

/**
 * When to go on to a backup, and what to write where.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Which failures of a storage move a read on to the next. With `ObjectNotFound` among them, what one storage lacks is
   * looked for on the next. Not asked about a mistake of the caller's (`InvalidKey`, `InvalidRange`). Default: `isDown`.
   */
  readonly when?: (error: E.StorageError) => boolean
  /**
   * After how many such failures in a row a storage is paused. Those of writes count, too; never those that tell of an
   * object and not of the storage (`ObjectNotFound`, `ObjectAlreadyExists`, `PreconditionFailed`, `ObjectNotModified`).
   * Default: 5.
   */
  readonly failures?: number
  /** For how long it is paused. Default: 30 seconds. */
  readonly pause?: Duration.DurationInput
  /**
   * Where to save, remove, copy and move: on the `"primary"` alone, paused or not, or on `"all"`. What is saved by a
   * presigned URL is on the primary alone. Default: `"primary"`.
   */
  readonly writes?: "primary" | "all"
  /**
   * Told with `writes: "all"`, after each write that the primary took, how it went on each storage, in their order. The
   * next write of the same keys waits until it is done. Default: nobody is told.
   */
  readonly onWrite?: (outcomes: ReadonlyArray<Outcome>) => Effect.Effect<void>
}

/**
 * How a write went on one storage.
 *
 * @since 0.1.0
 * @category models
 */
export interface Outcome {
  /** The storage, as it shows itself. */
  readonly backend: string
  readonly operation: Write
  /** The keys that the write is to change. */
  readonly keys: ReadonlyArray<string>
  /** What failed; of a `removeAll` perhaps for some of the keys. Empty where all went well. */
  readonly failures: ReadonlyArray<E.StorageError>
}

/**
 * An operation that changes something.
 *
 * @since 0.1.0
 * @category models
 */
export type Write = "save" | "remove" | "removeAll" | "copy" | "move"

/**
 * One storage of several, the first of which is the primary. It can do what the primary can, and holds what all can.
 * Fails with `UnsupportedOperation` where an option is out of bounds, or a storage is read-only with `writes: "all"`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  storages: Arr.NonEmptyReadonlyArray<Storage.Service>,
  options: Options = {}
): Effect.Effect<Storage.Service, E.UnsupportedOperation> =>
  Effect.gen(function*() {
    const backends = Arr.map(storages, (storage) => storage.backend)
    const name = `Failover(${backends.map((backend) => backend.name).join(", ")})`
    const invalid = (reason: string) => new E.UnsupportedOperation({ backend: name, operation: "open", reason })

    const { failures = 5, onWrite = () => Effect.void, when = isDown, writes = "primary" } = options
    if (!Number.isSafeInteger(failures) || failures < 1) {
      return yield* invalid(`failures is a whole number from 1 up, not ${failures}`)
    }
    const pause = Duration.toMillis(options.pause ?? "30 seconds")
    if (!(pause > 0 && pause < Infinity)) {
      return yield* invalid(`pause is longer than no time at all and ends, unlike ${Duration.format(pause)}`)
    }
    const readOnly = writes === "all" ? backends.find((backend) => !backend.capabilities.write) : undefined
    if (readOnly !== undefined) return yield* invalid(`writes: "all" is not for ${readOnly.name}, which is read-only`)
    return Storage.make(makeBackend(backends, name, { failures, onWrite, pause, when, writes }))
  })

/**
 * Provides one storage of those that several layers provide, the first of which is the primary. It needs what any of
 * them needs, and fails to be built where one does. As everywhere, a layer that is given twice is built once.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Schedule } from "effect"
 * import { FileSystemStorage, S3Storage, StorageFailover } from "surfing-weights"
 *
 * // Weights come from the bucket, and while it is down from the disk.
 * const WeightsLive = StorageFailover.layer([
 *   S3Storage.layer({ bucket: "model-weights", retry: Schedule.recurs(2) }),
 *   FileSystemStorage.layer({ directory: "/var/cache/models" })
 * ])
 * ```
 */
export function layer<const Layers extends Arr.NonEmptyReadonlyArray<Layer.Layer<Storage.Storage, unknown, unknown>>>(
  layers: Layers,
  options?: Options
): Layer.Layer<
  Storage.Storage,
  Layer.Layer.Error<Layers[number]> | E.UnsupportedOperation,
  Layer.Layer.Context<Layers[number]>
>
export function layer(
  [primary, ...backups]: Arr.NonEmptyReadonlyArray<Layer.Layer<Storage.Storage, unknown, unknown>>,
  options?: Options
): Layer.Layer<Storage.Storage, unknown, unknown> {
  const after = (
    storages: Arr.NonEmptyReadonlyArray<Storage.Service>
  ): Layer.Layer<Storage.Storage, unknown, unknown> => {
    const next = backups[storages.length - 1]
    return next === undefined
      ? Layer.effect(Storage.Storage, make(storages, options))
      : Layer.flatMap(next, (context) => after([...storages, Context.get(context, Storage.Storage)]))
  }
  return Layer.flatMap(primary, (context) => after([Context.get(context, Storage.Storage)]))
}

/**
 * Whether a failure is that of a storage which is down: it is unavailable or does not answer in time, retries used up
 * or not, or breaks off in the middle of an object.
 *
 * @since 0.1.0
 * @category utils
 */
export const isDown = (error: E.StorageError): boolean =>
  error._tag === "StorageUnavailable" || error._tag === "StorageTimeout" ||
  (error._tag === "CorruptObject" && error.problem === "truncated")

/** One of the storages, and how it fares. */
interface Member {
  readonly backend: StorageBackend
  /** Failures in a row. */
  failures: number
  /** When its pause is over, in milliseconds. Unset as long as it is in use. */
  pausedUntil: number | undefined
  /** Whether an operation tries it, now that its pause is over. */
  onTrial: boolean
}

/** What was opened on a storage, in a scope of its own. */
interface Opened<A> {
  readonly member: Member
  readonly scope: Scope.CloseableScope
  readonly value: A
}

const makeBackend = (
  backends: Arr.NonEmptyReadonlyArray<StorageBackend>,
  name: string,
  { failures: limit, onWrite, pause, when, writes }: Required<Omit<Options, "pause">> & { readonly pause: number }
): StorageBackend => {
  const members = Arr.map(backends, (backend): Member => ({
    backend,
    failures: 0,
    pausedUntil: undefined,
    onTrial: false
  }))
  const [primary, ...backups] = members
  const ableTo = (capability: "list" | "presign"): Arr.NonEmptyReadonlyArray<Member> => [
    primary,
    ...backups.filter(({ backend }) => backend.capabilities[capability])
  ]
  const listing = ableTo("list")
  const presigning = ableTo("presign")

  const movesOn = (error: E.StorageError): boolean =>
    error._tag !== "InvalidKey" && error._tag !== "InvalidRange" && when(error)

  const movesRead = (error: E.StorageError, member: Member): boolean =>
    movesOn(error) || (member !== primary && error._tag === "UnsupportedOperation")

  /** Notes that a storage is up. */
  const isUp = (member: Member): Effect.Effect<void> =>
    Effect.suspend(() => {
      const wasPaused = member.pausedUntil !== undefined
      member.failures = 0
      member.pausedUntil = undefined
      return wasPaused ? Effect.logInfo(`${name}: ${member.backend.name} is back`) : Effect.void
    })

  /**
   * The same effect, whose success is noted. That something opens ends a pause, but is no success yet: a storage may
   * open everything and then break off.
   */
  const noted = <A, Err, R>(
    member: Member,
    effect: Effect.Effect<A, Err, R>,
    opens = false
  ): Effect.Effect<A, Err, R> =>
    Effect.flatMap(effect, (value) =>
      member.failures === 0 || (opens && member.pausedUntil === undefined)
        ? Effect.succeed(value)
        : Effect.as(isUp(member), value))

  /** Notes a failure. */
  const failed = (member: Member, error: E.StorageError | Foreign<unknown>): Effect.Effect<void> =>
    error instanceof Foreign
      ? Effect.void
      : isAnswer(error) || !movesOn(error)
      ? isUp(member)
      : Effect.flatMap(Clock.currentTimeMillis, (now) => {
        member.failures++
        const { pausedUntil } = member
        if (member.failures < limit || (pausedUntil !== undefined && now < pausedUntil)) return Effect.void
        member.pausedUntil = now + pause
        if (pausedUntil !== undefined) return Effect.void
        const other = members.find(({ pausedUntil }) => pausedUntil === undefined)
        const instead = other === undefined ? "as all others are" : `${other.backend.name} is read instead`
        return Effect.logWarning(
          `${name}: ${member.backend.name} is paused for ${Duration.format(pause)}, ${instead}: ` +
            `it failed ${member.failures} times in a row, the last time: ${error.message}`
        )
      })

  /** Which of two failures is told of where nothing is left to try: that of the primary, if it has failed. */
  const graver = <Err>(member: Member, error: Err, before: Err | undefined): Err =>
    before === undefined || member === primary ? error : before

  /**
   * Tries one storage after the other until one does not fail with what moves on: first those in use and one whose
   * pause is over, then the others. Where all have failed, the failure is that of the primary.
   */
  const inTurn = <A, Err extends E.StorageError | Foreign<unknown>, R>(
    left: Arr.NonEmptyReadonlyArray<Member>,
    attempt: (member: Member) => Effect.Effect<A, Err, R>,
    moves: (error: Err, member: Member) => boolean,
    before?: Err
  ): Effect.Effect<A, Err, R> =>
    Effect.suspend(() => {
      const orNext = (member: Member, error: Err): Effect.Effect<A, Err, R> => {
        if (!moves(error, member)) return Effect.fail(error)
        const failure = graver(member, error, before)
        const rest = left.filter((other) => other !== member)
        return Arr.isNonEmptyReadonlyArray(rest) ? inTurn(rest, attempt, moves, failure) : Effect.fail(failure)
      }
      const [first] = left
      return first.pausedUntil === undefined
        ? Effect.catchAll(attempt(first), (error) => Effect.zipRight(failed(first, error), orNext(first, error)))
        : Effect.acquireUseRelease(
          Effect.map(Clock.currentTimeMillis, (now) => take(left, now)),
          ({ member }) =>
            Effect.catchAll(
              attempt(member),
              (error) => Effect.zipRight(failed(member, error), Effect.fail({ member, error }))
            ),
          ({ isTrial, member }) =>
            Effect.sync(() => {
              if (isTrial) member.onTrial = false
            })
        ).pipe(
          Effect.catchAll(({ error, member }) => orNext(member, error))
        )
    })

  const read = <A, Err extends E.StorageError>(
    run: (backend: StorageBackend) => Effect.Effect<A, Err>,
    among: Arr.NonEmptyReadonlyArray<Member> = members
  ): Effect.Effect<A, Err> => inTurn(among, (member) => noted(member, run(member.backend)), movesRead)

  /** Opens something in a scope of its own within the outer one, so that it can be closed before the next is opened. */
  const opening = <A, Err extends E.StorageError>(
    member: Member,
    outer: Scope.Scope,
    open: Effect.Effect<A, Err, Scope.Scope>
  ): Effect.Effect<Opened<A>, Err> =>
    Effect.flatMap(
      Scope.fork(outer, ExecutionStrategy.sequential),
      (scope) =>
        noted(member, Scope.extend(open, scope), true).pipe(
          Effect.map((value) => ({ member, scope, value })),
          Effect.tapError((error) => Scope.close(scope, Exit.fail(error)))
        )
    )

  /** The same stream, with note taken of how it ends. */
  const notedStream = <A, Err extends E.StorageError>(
    member: Member,
    stream: Stream.Stream<A, Err>
  ): Stream.Stream<A, Err> =>
    stream.pipe(
      Stream.tapError((error) => failed(member, error)),
      Stream.concat(Stream.execute(isUp(member)))
    )

  const open: StorageBackend["open"] = (key, options) =>
    Effect.flatMap(Effect.scope, (outer) => {
      const openOn = (options: LoadOptions) => (member: Member) =>
        opening(member, outer, member.backend.open(key, options))

      return Effect.map(inTurn(members, openOn(options), movesRead), (first) => {
        const { info, range } = first.value
        let at = range.start

        const from = (
          { member, scope, value }: Opened<OpenedObject>,
          left: ReadonlyArray<Member>,
          before?: E.LoadError
        ): Stream.Stream<Uint8Array, E.LoadError> => {
          const others = left.filter((other) => other !== member)
          return notedStream(member, value.stream).pipe(
            Stream.mapChunks((chunk) => {
              for (const bytes of chunk) at += bytes.byteLength
              return chunk
            }),
            Stream.catchAll((error) => {
              // Bytes that came of an object that is corrupt may be wrong themselves.
              if (!movesOn(error) || (error._tag === "CorruptObject" && !isDown(error))) return Stream.fail(error)
              // Every byte has come: what broke was no more than the end.
              if (at >= range.endExclusive) return Stream.empty
              const failure = graver(member, error, before)
              return Stream.unwrap(Effect.map(
                Effect.zipRight(Scope.close(scope, Exit.fail(error)), goOn(others, failure)),
                (next) => from(next, others, failure)
              ))
            })
          )
        }

        const goOn = (
          left: ReadonlyArray<Member>,
          error: E.LoadError
        ): Effect.Effect<Opened<OpenedObject>, E.LoadError> => {
          // An object that tells nothing of its content is not even provably the same as itself.
          if (!Arr.isNonEmptyReadonlyArray(left) || sameContent(info, info) !== true) return Effect.fail(error)
          const openRest = openOn({ range: ByteRange.make(at, range.endExclusive) })
          const openSame = (member: Member) =>
            Effect.filterOrElse(
              openRest(member),
              ({ value }) => sameContent(info, value.info) === true,
              ({ scope }) => Effect.zipRight(Scope.close(scope, Exit.void), Effect.fail(new Foreign(error)))
            )
          return Effect.mapError(inTurn(left, openSame, () => true), () => error)
        }

        return { info, range, stream: from(first, members) }
      })
    })

  const list = <A>(run: (backend: StorageBackend) => Stream.Stream<A, E.ListError>): Stream.Stream<A, E.ListError> =>
    Stream.unwrapScopedWith((outer) =>
      Effect.map(
        inTurn(listing, (member) => opening(member, outer, begun(run(member.backend))), movesRead),
        ({ member, value }) => notedStream(member, value)
      )
    )

  /** A write on one storage, paused or not. */
  const write = <A, Err extends E.StorageError | Foreign<unknown>, R>(
    member: Member,
    effect: Effect.Effect<A, Err, R>
  ): Effect.Effect<A, Err, R> => Effect.tapError(noted(member, effect), (error) => failed(member, error))

  /** A save on one storage. The failures of a source are not the storage's, though they be those of another. */
  const save = <Err, R>(
    member: Member,
    key: string,
    data: Uint8Array | Stream.Stream<Uint8Array, Err, R>,
    options: SaveOptions
  ): Effect.Effect<ObjectInfo, E.SaveError | Err, R> =>
    data instanceof Uint8Array
      ? write(member, member.backend.save<never, never>(key, data, options))
      : Effect.mapError(
        write(member, member.backend.save(key, Stream.mapError(data, (error) => new Foreign(error)), options)),
        (error) => error instanceof Foreign ? error.error : error
      )

  const onPrimary: Pick<StorageBackend, Write> = {
    save: (key, data, options) => save(primary, key, data, options),
    remove: (key) => write(primary, primary.backend.remove(key)),
    removeAll: (keys) => write(primary, primary.backend.removeAll(keys)),
    copy: (from, to, options) => write(primary, primary.backend.copy(from, to, options)),
    move: (from, to, options) => write(primary, primary.backend.move(from, to, options))
  }

  const locks = Locks.make()

  /** Alone with these keys, which are taken in one order by all, so that nobody waits for each other. */
  const locked = <A, Err, R>(keys: ReadonlyArray<string>, effect: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R> =>
    [...new Set(keys)].sort().reduce((effect, key) => locks(key)(effect), effect)

  /** Takes to every backup what the primary has taken. Fails with the first that failed when all were tried. */
  const replicate = <Err extends E.StorageError>(
    operation: Write,
    keys: ReadonlyArray<string>,
    run: (backup: Member) => Effect.Effect<ReadonlyArray<Err> | void, Err>,
    ofPrimary: ReadonlyArray<E.StorageError> = []
  ): Effect.Effect<ReadonlyArray<Err>, Err> =>
    Effect.forEach(backups, (backup) => Effect.either(run(backup)), { concurrency: "unbounded" }).pipe(
      Effect.tap((results) => {
        const ofBackups = results.map(
          Either.match({ onLeft: (error) => [error], onRight: (failures) => failures ?? [] })
        )
        return onWrite(Arr.zipWith(members, [ofPrimary, ...ofBackups], ({ backend }, failures) => ({
          backend: backend.name,
          operation,
          keys,
          failures
        })))
      }),
      Effect.flatMap((results) => Either.all(results)),
      Effect.map((failures) => failures.flatMap((ofOne) => ofOne ?? []))
    )

  /** Takes an object of the primary to a backup. */
  const bring = ({ etag, key, size }: ObjectInfo, backup: Member): Effect.Effect<void, E.SaveError> =>
    Effect.scoped(
      Effect.flatMap(primary.backend.open(key, { ifMatch: etag }), ({ stream }) => save(backup, key, stream, { size }))
    ).pipe(
      Effect.asVoid,
      Effect.catchTags({
        // Whoever has overwritten or removed it since takes that to the backups.
        PreconditionFailed: () => Effect.void,
        ObjectNotFound: () => Effect.void,
        ObjectNotModified: impossible,
        InvalidRange: impossible
      })
    )

  const onAll: Pick<StorageBackend, Write> = {
    save: (key, data, options) =>
      data instanceof Uint8Array
        ? locked(
          [key],
          Effect.tap(
            onPrimary.save<never, never>(key, data, options),
            () => replicate("save", [key], (backup) => Effect.asVoid(save<never, never>(backup, key, data, {})))
          )
        )
        // A source may take any time, and is not waited for by others.
        : Effect.tap(
          onPrimary.save(key, data, options),
          (info) => locked([key], replicate("save", [key], (backup) => bring(info, backup)))
        ),
    remove: (key) =>
      locked(
        [key],
        Effect.zipLeft(
          onPrimary.remove(key),
          replicate("remove", [key], (backup) => write(backup, backup.backend.remove(key)))
        )
      ),
    removeAll: (keys) =>
      locked(
        keys,
        Effect.flatMap(onPrimary.removeAll(keys), (remaining) => {
          const stay = new Set(remaining.map(({ key }) => key))
          const gone = keys.filter((key) => !stay.has(key))
          return Effect.map(
            replicate("removeAll", keys, (backup) => write(backup, backup.backend.removeAll(gone)), remaining),
            (more) => [...remaining, ...Arr.dedupeWith(more, (one, other) => one.key === other.key)]
          )
        })
      ),
    copy: (from, to, options) =>
      locked(
        [to],
        Effect.tap(
          onPrimary.copy(from, to, options),
          (info) => replicate("copy", [to], (backup) => bring(info, backup))
        )
      ),
    move: (from, to, options) =>
      locked(
        [from, to],
        Effect.tap(onPrimary.move(from, to, options), (info) =>
          replicate("move", [from, to], (backup) =>
            Effect.zipRight(bring(info, backup), write(backup, backup.backend.remove(from)))))
      )
  }

  const { copy, move, remove, removeAll, save: saveOn } = writes === "all" ? onAll : onPrimary
  return {
    name,
    capabilities: {
      ...primary.backend.capabilities,
      objectsWithinObjects: backends.every((backend) => backend.capabilities.objectsWithinObjects)
    },
    open,
    load: (key, options) => read((backend) => backend.load(key, options)),
    loadRanges: (key, ranges, options) => read((backend) => backend.loadRanges(key, ranges, options)),
    head: (key) => read((backend) => backend.head(key)),
    save: saveOn,
    entries: (options) => list((backend) => backend.entries(options)),
    keys: (options) => list((backend) => backend.keys(options)),
    listDirectory: (prefix) => read((backend) => backend.listDirectory(prefix), listing),
    remove,
    removeAll,
    copy,
    move,
    // A URL may be made without asking the storage: that it comes is no sign that the storage is up.
    presign: (key, options) =>
      options.method === "GET"
        ? inTurn(presigning, ({ backend }) => backend.presign(key, options), movesRead)
        : Effect.tapError(primary.backend.presign(key, options), (error) => failed(primary, error))
  }
}

/** Whether a failure tells of an object and not of the storage, which is up. */
const isAnswer = (error: E.StorageError): boolean =>
  error._tag === "ObjectNotFound" || error._tag === "ObjectAlreadyExists" || error._tag === "PreconditionFailed" ||
  error._tag === "ObjectNotModified"

/**
 * The first that is in use, or whose pause is over and that nobody tries yet: then it is marked as tried. Where there
 * is none, the first of those that are paused.
 */
const take = (
  left: Arr.NonEmptyReadonlyArray<Member>,
  now: number
): { readonly member: Member; readonly isTrial: boolean } => {
  const member = left.find(({ onTrial, pausedUntil }) => pausedUntil === undefined || (!onTrial && now >= pausedUntil))
  const isTrial = member?.pausedUntil !== undefined
  if (isTrial) member.onTrial = true
  return { member: member ?? left[0], isTrial }
}

/** The same listing, of which something has come. */
const begun = <A>(
  listing: Stream.Stream<A, E.ListError>
): Effect.Effect<Stream.Stream<A, E.ListError>, E.ListError, Scope.Scope> =>
  Effect.flatMap(Stream.toPull(listing), (pull) =>
    Effect.matchEffect(pull, {
      onSuccess: (chunk) =>
        Effect.succeed(Stream.concat(Stream.fromChunk(chunk), Stream.repeatEffectChunkOption(pull))),
      onFailure: Option.match({ onNone: () => Effect.succeed(Stream.empty), onSome: Effect.fail })
    }))

/** For a failure that reading back without options could not have. */
const impossible = (error: E.LoadError) =>
  Effect.fail(
    new E.UnexpectedStorageError({
      backend: error.backend,
      operation: "open",
      ...(error.key !== undefined && { key: error.key }),
      reason: error.message,
      cause: error
    })
  )
