/**
 * Failures on purpose: a storage around another that fails, breaks off or is late where its rules say so, to see what an
 * app makes of it. Rules are counted, so what happens is the same each time.
 *
 * @module StorageChaos
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Refinement } from "effect/Predicate"
import * as Stream from "effect/Stream"
import {
  isCopyError,
  isHeadError,
  isListError,
  isLoadError,
  isPresignError,
  isRemoveError,
  isSaveError
} from "../internal/errors.js"
import { withSource } from "../internal/source.js"
import * as Storage from "../Storage.js"
import { opened as openedObject, type OpenedObject, type StorageBackend } from "../StorageBackend.js"
import * as E from "../StorageError.js"

/**
 * An operation of a backend. `Storage.stream` and `Storage.open` come down to `open`, `Storage.list` to `keys`,
 * `Storage.exists` to `head`; every other operation has the name it has on `Storage`.
 *
 * @since 0.1.0
 * @category models
 */
export type Operation = Exclude<keyof StorageBackend, "name" | "capabilities">

/**
 * What is to fail, and how. A rule without fields lets the first operation of any kind fail.
 *
 * @since 0.1.0
 * @category models
 */
export interface Rule {
  /** Which operations it strikes. Default: all. */
  readonly operation?: Operation | ReadonlyArray<Operation>
  /**
   * Which keys it strikes: one, or those that a predicate picks out. Default: all. The key of a copy or move is the one
   * that it reads, the key of a listing its prefix. Of a `removeAll` it strikes the keys it names one by one, and the
   * others are removed; without `key` the batch fails as a whole.
   */
  readonly key?: string | ((key: string) => boolean)
  /** How often it strikes before it is used up. Default: once. `Infinity` is allowed. */
  readonly times?: number
  /**
   * When it strikes: `before` the operation (the default), so that nothing has happened, or `after` it succeeded, so that
   * its answer is lost. A listing breaks at its beginning or at its end.
   */
  readonly when?: "before" | "after"
  /**
   * Strikes after exactly this many bytes, counted from where a stream begins, and instead of `when`. Chunks are cut to
   * fit. Where the bytes come or go in one piece, they have to be at least so many: a load then gives nothing, a save
   * saves nothing. Operations that move no bytes, or fewer, are not struck.
   */
  readonly afterBytes?: number
  /** How long it waits before it strikes. Default: not at all. */
  readonly delay?: Duration.DurationInput
  /**
   * The failure. Default: `StorageUnavailable` with the reason "injected". `"none"` is for rules that only delay. A
   * failure that the operation could never give comes out as an `UnexpectedStorageError` that says so.
   */
  readonly error?: "none" | ((struck: Struck) => E.StorageError)
}

/**
 * What a rule strikes, as the fields that failures have. `key` is empty where there is none.
 *
 * @since 0.1.0
 * @category models
 */
export interface Struck {
  readonly backend: string
  readonly operation: Operation
  readonly key: string
}

/**
 * The same storage under these rules. Where several concern an operation, they strike in their order, each until it is
 * used up, and those after one that failed the operation are spared. Strikes are counted as long as the storage lives.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (storage: Storage.Service, rules: ReadonlyArray<Rule>): Effect.Effect<Storage.Service> =>
  Effect.sync(() => Storage.make(makeBackend(storage.backend, rules)))

/**
 * Provides the storage it needs, under these rules.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { MemoryStorage, StorageChaos, StorageError } from "surfing-weights"
 *
 * const layer = StorageChaos.layer([
 *   // The connection breaks twice, each time after 1,000 bytes.
 *   { operation: "open", key: "layer_0.bin", afterBytes: 1000, times: 2 },
 *   // The disk is full for good.
 *   { operation: "save", times: Infinity, error: (struck) => new StorageError.StorageFull({ ...struck, reason: "full" }) },
 *   // The answer to the first removal is lost.
 *   { operation: "remove", when: "after" },
 *   // Listings are slow.
 *   { operation: ["entries", "keys"], delay: "2 seconds", times: Infinity, error: "none" }
 * ]).pipe(
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (rules: ReadonlyArray<Rule>): Layer.Layer<Storage.Storage, never, Storage.Storage> =>
  Layer.effect(Storage.Storage, Effect.flatMap(Storage.Storage, (storage) => make(storage, rules)))

interface ArmedRule extends Rule {
  left: number
}

const makeBackend = (inner: StorageBackend, rules: ReadonlyArray<Rule>): StorageBackend => {
  const name = `Chaos(${inner.name})`
  const armed: ReadonlyArray<ArmedRule> = rules.map((rule) => ({ ...rule, left: rule.times ?? 1 }))

  /** What the rules that concern one operation do to it. */
  const under = <Err extends E.StorageError>(
    operation: Operation,
    key: string,
    canGive: Refinement<E.StorageError, Err>,
    concerned: ReadonlyArray<ArmedRule> = armed
  ) => {
    const mine = concerned.filter((rule) => concerns(rule, operation, key))
    const strike = (rule: ArmedRule): Effect.Effect<void, Err | E.UnexpectedStorageError> =>
      Effect.suspend(() => {
        if (rule.left <= 0) return Effect.void
        rule.left--
        const { delay, error = injected } = rule
        const failing = error === "none" ? Effect.void : Effect.suspend(() => {
          const failure = error({ backend: name, operation, key })
          return Effect.fail(canGive(failure) ? failure : misfit(failure, operation))
        })
        return delay === undefined ? failing : Effect.delay(failing, delay)
      })
    const strikes = (when: (rule: Rule) => boolean) => Effect.forEach(mine.filter(when), strike, { discard: true })
    return {
      before: strikes(({ afterBytes, when = "before" }) => afterBytes === undefined && when === "before"),
      after: strikes(({ afterBytes, when }) => afterBytes === undefined && when === "after"),
      /** Once so many bytes have come or are to go in one piece. */
      moved: (bytes: number) => strikes(({ afterBytes }) => afterBytes !== undefined && afterBytes <= bytes),
      breaksStreams: mine.some(({ afterBytes }) => afterBytes !== undefined),
      /** The same stream, struck on its way. */
      broken: <Buffer extends ArrayBufferLike, E2>(stream: Stream.Stream<Uint8Array<Buffer>, E2>) =>
        mine.reduce<Stream.Stream<Uint8Array<Buffer>, E2 | Err | E.UnexpectedStorageError>>(
          (stream, rule) =>
            rule.afterBytes === undefined
              ? stream
              : oncePassed(rule.afterBytes, stream, () => rule.left > 0, strike(rule)),
          stream
        )
    }
  }

  const around = <A, Err, R>(
    { after, before }: { readonly before: Effect.Effect<void, Err>; readonly after: Effect.Effect<void, Err> },
    effect: Effect.Effect<A, Err, R>
  ): Effect.Effect<A, Err, R> => Effect.zipRight(before, Effect.zipLeft(effect, after))

  const aroundListing = <A>(
    operation: Operation,
    prefix: string | undefined,
    listing: Stream.Stream<A, E.ListError>
  ): Stream.Stream<A, E.ListError> => {
    const { after, before } = under(operation, prefix ?? "", isListError)
    return Stream.execute(before).pipe(Stream.concat(listing), Stream.concat(Stream.execute(after)))
  }

  return {
    name,
    capabilities: inner.capabilities,
    open: (key, options) => {
      const rules = under("open", key, isLoadError)
      return around(
        rules,
        Effect.map(inner.open(key, options), (opened): OpenedObject =>
          rules.breaksStreams
            ? openedObject({ info: opened.info, range: opened.range, stream: rules.broken(opened.stream) })
            : opened)
      )
    },
    load: (key, options) => {
      const rules = under("load", key, isLoadError)
      return around(rules, Effect.tap(inner.load(key, options), (bytes) => rules.moved(bytes.byteLength)))
    },
    loadRanges: (key, ranges, options) => {
      const rules = under("loadRanges", key, isLoadError)
      return around(
        rules,
        Effect.tap(
          inner.loadRanges(key, ranges, options),
          (arrays) => rules.moved(arrays.reduce((sum, bytes) => sum + bytes.byteLength, 0))
        )
      )
    },
    head: (key) => around(under("head", key, isHeadError), inner.head(key)),
    save: (key, data, options) => {
      const rules = under("save", key, isSaveError)
      return data instanceof Uint8Array
        ? around(rules, Effect.zipRight(rules.moved(data.byteLength), inner.save(key, data, options)))
        : around(rules, withSource(rules.broken(data), (data) => inner.save(key, data, options)))
    },
    entries: (options) => aroundListing("entries", options.prefix, inner.entries(options)),
    keys: (options) => aroundListing("keys", options.prefix, inner.keys(options)),
    listDirectory: (prefix) => around(under("listDirectory", prefix, isListError), inner.listDirectory(prefix)),
    remove: (key, options) => around(under("remove", key, isRemoveError), inner.remove(key, options)),
    removeAll: (keys) => {
      const [ofBatches, ofKeys] = Arr.partition(armed, (rule) => rule.key !== undefined)
      const on = (key: string) => under("removeAll", key, isRemoveError, ofKeys)
      return around(
        under("removeAll", "", isRemoveError, ofBatches),
        Effect.gen(function*() {
          const [refused, allowed] = yield* Effect.partition(keys, (key) => Effect.as(on(key).before, key))
          const remaining = yield* inner.removeAll(allowed)
          const gone = allowed.filter((key) => !remaining.some((error) => error.key === key))
          const [lost] = yield* Effect.partition(gone, (key) => on(key).after)
          return [...refused, ...remaining, ...lost]
        })
      )
    },
    copy: (from, to, options) => around(under("copy", from, isCopyError), inner.copy(from, to, options)),
    move: (from, to, options) => around(under("move", from, isCopyError), inner.move(from, to, options)),
    presign: (key, options) => around(under("presign", key, isPresignError), inner.presign(key, options))
  }
}

const concerns = (rule: Rule, operation: Operation, key: string): boolean =>
  (rule.operation === undefined || Arr.ensure(rule.operation).includes(operation)) &&
  (typeof rule.key === "function" ? rule.key(key) : rule.key === undefined || rule.key === key)

/** Runs an effect when exactly so many bytes of a stream have passed, if it is wanted then. */
const oncePassed = <Buffer extends ArrayBufferLike, Err, E2, R>(
  count: number,
  stream: Stream.Stream<Uint8Array<Buffer>, Err, R>,
  wanted: () => boolean,
  effect: Effect.Effect<void, E2>
): Stream.Stream<Uint8Array<Buffer>, Err | E2, R> =>
  Stream.suspend(() => {
    let left = count
    const rest = Stream.flatMap(stream, (bytes) => {
      const at = left
      left -= bytes.byteLength
      return at <= 0 || at > bytes.byteLength || !wanted() ?
        Stream.make(bytes) :
        Stream.make(bytes.subarray(0, at)).pipe(
          Stream.concat(Stream.execute(effect)),
          Stream.concat(at < bytes.byteLength ? Stream.make(bytes.subarray(at)) : Stream.empty)
        )
    })
    return count === 0 ? Stream.concat(Stream.execute(effect), rest) : rest
  })

const injected = ({ key }: Struck): E.StorageError =>
  new E.StorageUnavailable({ key: key === "" ? undefined : key, reason: "injected" })

const misfit = (error: E.StorageError, operation: Operation): E.UnexpectedStorageError =>
  new E.UnexpectedStorageError({
    key: error.key,
    reason: `a rule injects ${error._tag}, which ${operation} never fails with`,
    cause: error
  })
