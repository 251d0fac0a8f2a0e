/**
 * Injected failures: a wrapper that fails, breaks off or delays operations as its rules say, to test how an app reacts.
 * Rules are counted, so the same calls fail each time; those that have never applied, because of a typo in a key for instance,
 * are in `unused`.
 *
 * @module StorageChaos
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { isLoadError, isRemoveError, isSaveError, withPlace } from "../internal/errors.js"
import * as Options from "../internal/options.js"
import { withSource } from "../internal/source.js"
import * as Storage from "../Storage.js"
import * as StorageBackend from "../StorageBackend.js"
import * as E from "../StorageError.js"

/**
 * An operation of a backend. `Storage.stream` and `Storage.open` call `open`, `Storage.list` calls `keys`, `Storage.exists`
 * calls `head`, `Storage.sink` calls `save`; the others call the operation of their own name.
 *
 * @since 0.1.0
 * @category models
 */
export type Operation = StorageBackend.Call["operation"]

/**
 * Which operations fail, and how. A rule without fields fails the first operation of any kind.
 *
 * @since 0.1.0
 * @category models
 */
export interface Rule {
  /** The operations to which the rule applies. Default: all. */
  readonly operation?: Operation | ReadonlyArray<Operation> | undefined
  /**
   * The keys to which the rule applies: one, or those for which a predicate is true. Default: all. The key of a copy or move
   * is the old one, the key of a listing its prefix. In `removeAll` the keys of the rule fail and the others are removed;
   * without `key` the whole batch fails.
   */
  readonly key?: string | ((key: string) => boolean) | undefined
  /** How many times the rule applies. Default: 1. `Infinity` is allowed. */
  readonly times?: number | undefined
  /**
   * Whether the operation fails `before` it has changed or read anything, or `after` it has succeeded, so that its response
   * is lost. A listing fails at its start or at its end. Default: `before`.
   */
  readonly when?: "before" | "after" | undefined
  /**
   * Instead of `when`: the number of bytes after which a stream breaks, counted from its start. Chunks are cut to fit. Bytes
   * that are loaded or saved in one piece fail where there are at least as many: such a load returns nothing, such a save
   * saves nothing. An operation that moves fewer bytes does not fail.
   */
  readonly afterBytes?: number | undefined
  /** How long to wait before failing. Default: no wait. */
  readonly delay?: Duration.DurationInput | undefined
  /**
   * The failure. Default: `StorageUnavailable` with the reason "injected". `"none"` only waits. A failure that the operation
   * cannot have is replaced by an `UnexpectedStorageError` that says so.
   */
  readonly error?: "none" | ((target: Target) => E.StorageError) | undefined
}

/**
 * The operation that is to fail, as the fields that failures have. `key` is empty where there is none.
 *
 * @since 0.1.0
 * @category models
 */
export interface Target {
  readonly backend: string
  readonly operation: Operation
  readonly key: string
}

/**
 * What rules have done.
 *
 * @since 0.1.0
 * @category models
 */
export interface Chaos {
  /**
   * The rules that have not applied to any operation so far, as they were given and in their order, without those whose `times`
   * is 0. A test that expects none notices a failure that it has never injected.
   */
  readonly unused: Effect.Effect<ReadonlyArray<Rule>>
}

/**
 * A storage under rules.
 *
 * @since 0.1.0
 * @category models
 */
export interface ChaosStorage extends Storage.Service, Chaos {}

/**
 * What a layer provides beside its storage.
 *
 * @since 0.1.0
 * @category tags
 */
export class StorageChaos extends Context.Tag("surfing-weights/StorageChaos")<StorageChaos, Chaos>() {}

/**
 * The rules of the layer that have not applied to any operation so far.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { deepStrictEqual } from "node:assert"
 * import { MemoryStorage, Storage, StorageChaos } from "surfing-weights"
 *
 * const test = Effect.gen(function*() {
 *   yield* Effect.either(Storage.load("layer_0.bin"))
 *   deepStrictEqual(yield* StorageChaos.unused, [])
 * }).pipe(
 *   Effect.provide(StorageChaos.layer([{ operation: "load" }]).pipe(Layer.provide(MemoryStorage.layer())))
 * )
 * ```
 */
export const unused: Effect.Effect<ReadonlyArray<Rule>, never, StorageChaos> = Effect.flatMap(
  StorageChaos,
  ({ unused }) => unused
)

/**
 * The same storage under rules. Those that apply to an operation do so in their order, until one fails it. Each is counted
 * for as long as the storage lives.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: {
  (rules: ReadonlyArray<Rule>): (storage: Storage.Service) => Effect.Effect<ChaosStorage, E.InvalidOptions>
  (storage: Storage.Service, rules: ReadonlyArray<Rule>): Effect.Effect<ChaosStorage, E.InvalidOptions>
} = dual(
  2,
  (storage: Storage.Service, rules: ReadonlyArray<Rule>): Effect.Effect<ChaosStorage, E.InvalidOptions> =>
    Effect.map(Options.decode("StorageChaos", schema, { rules }), (decoded) => {
      const { backend } = storage
      const chaos = new Injector(`Chaos(${backend.name})`, decoded.rules)
      const service = Storage.make(StorageBackend.intercept(withBrokenBytes(backend, chaos), {
        name: chaos.name,
        effect: (effect, call) =>
          chaos.apply(call, isBefore).pipe(Effect.zipRight(effect), Effect.zipLeft(chaos.apply(call, isAfter))),
        stream: (stream, call) =>
          call.prefix === undefined
            ? stream
            : Stream.execute(chaos.apply(call, isBefore)).pipe(
              Stream.concat(stream),
              Stream.concat(Stream.execute(chaos.apply(call, isAfter)))
            )
      }))
      return { ...service, unused: Effect.sync(() => rules.filter((_, index) => chaos.isUnused(decoded.rules[index]))) }
    })
)

/**
 * Provides the storage that it needs, under rules, and which of them are unused.
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
 *   // Every save fails, since the disk is full.
 *   { operation: "save", times: Infinity, error: () => new StorageError.StorageFull({ reason: "no space left" }) },
 *   // The first removal succeeds, but its response is lost.
 *   { operation: "remove", when: "after" },
 *   // Listings are slow.
 *   { operation: ["entries", "keys"], delay: "2 seconds", times: Infinity, error: "none" }
 * ]).pipe(
 *   Layer.provide(MemoryStorage.layer())
 * )
 * ```
 */
export const layer = (
  rules: ReadonlyArray<Rule>
): Layer.Layer<Storage.Storage | StorageChaos, E.InvalidOptions, Storage.Storage> =>
  Layer.effectContext(
    Effect.map(Effect.flatMap(Storage.Storage, make(rules)), (storage) =>
      Context.make(Storage.Storage, storage).pipe(Context.add(StorageChaos, { unused: storage.unused })))
  )

const operation = Options.oneOf(
  "open",
  "load",
  "loadRanges",
  "head",
  "save",
  "entries",
  "keys",
  "listDirectory",
  "remove",
  "removeAll",
  "copy",
  "move",
  "presign"
)

const isCount = (value: number) => value === Infinity || (Number.isSafeInteger(value) && value >= 0)

const ruleSchema = Schema.Struct({
  operation: Schema.optional(
    Options.either(operation, Schema.Array(operation), "the name of an operation of a backend, or several in an array")
  ),
  key: Schema.optional(
    Options.either(Options.string(), Options.callback<(key: string) => boolean>(), "a key or a predicate")
  ),
  times: Schema.optionalWith(Options.number("a whole number of at least 0, or Infinity", isCount), {
    default: () => 1
  }),
  when: Schema.optionalWith(Options.oneOf("before", "after"), { default: () => "before" as const }),
  afterBytes: Schema.optional(Options.count({ min: 0 })),
  delay: Schema.optional(Options.duration()),
  error: Schema.optionalWith(
    Options.either(
      Options.oneOf("none"),
      Options.callback<(target: Target) => E.StorageError>(),
      "a function that returns a StorageError, or \"none\""
    ),
    { default: () => injected }
  )
})

type DecodedRule = typeof ruleSchema.Type

const schema: Schema.Schema<
  { readonly rules: ReadonlyArray<DecodedRule> },
  { readonly rules: ReadonlyArray<Rule> }
> = Schema.Struct({ rules: Schema.Array(ruleSchema) })

const injected = ({ key }: Target): E.StorageError =>
  new E.StorageUnavailable({ key: key === "" ? undefined : key, reason: "injected" })

const isBefore = ({ afterBytes, when }: DecodedRule): boolean => afterBytes === undefined && when === "before"

const isAfter = ({ afterBytes, when }: DecodedRule): boolean => afterBytes === undefined && when === "after"

/** Rules, and how often each may still apply. */
class Injector {
  readonly name: string
  readonly #rules: ReadonlyArray<DecodedRule>
  readonly #remaining: Map<DecodedRule, number>
  readonly #used = new Set<DecodedRule>()

  constructor(name: string, rules: ReadonlyArray<DecodedRule>) {
    this.name = name
    this.#rules = rules
    this.#remaining = new Map(rules.map((rule) => [rule, rule.times]))
  }

  isUnused(rule: DecodedRule | undefined): boolean {
    return rule !== undefined && rule.times > 0 && !this.#used.has(rule)
  }

  /** Applies those rules of an operation that are due. */
  apply<Err extends E.StorageError>(
    call: StorageBackend.Call<Err>,
    isDue: (rule: DecodedRule) => boolean
  ): Effect.Effect<void, Err | E.UnexpectedStorageError> {
    return Effect.forEach(this.#rulesOf(call).filter(isDue), (rule) => this.#applyRule(call, rule), { discard: true })
  }

  /** Applies the rules that are due once this many bytes have been moved at once. */
  moved<Err extends E.StorageError>(
    call: StorageBackend.Call<Err>,
    bytes: number
  ): Effect.Effect<void, Err | E.UnexpectedStorageError> {
    return this.apply(call, ({ afterBytes }) => afterBytes !== undefined && afterBytes <= bytes)
  }

  /** Whether a rule may break the stream of an operation. */
  breaksStream(call: StorageBackend.Call): boolean {
    return this.#rulesOf(call).some((rule) => rule.afterBytes !== undefined && this.#isLeft(rule))
  }

  /** The same stream, which breaks where a rule says so. */
  brokenStream<Buffer extends ArrayBufferLike, E2, Err extends E.StorageError>(
    call: StorageBackend.Call<Err>,
    stream: Stream.Stream<Uint8Array<Buffer>, E2>
  ): Stream.Stream<Uint8Array<Buffer>, E2 | Err | E.UnexpectedStorageError> {
    return this.#rulesOf(call).reduce<Stream.Stream<Uint8Array<Buffer>, E2 | Err | E.UnexpectedStorageError>>(
      (stream, rule) =>
        rule.afterBytes === undefined
          ? stream
          : afterBytes(rule.afterBytes, stream, () => this.#isLeft(rule), this.#applyRule(call, rule)),
      stream
    )
  }

  #rulesOf({ key, operation, prefix }: StorageBackend.Call): ReadonlyArray<DecodedRule> {
    return this.#rules.filter((rule) =>
      (rule.operation === undefined || Arr.ensure(rule.operation).includes(operation)) &&
      isKeyOf(rule, key ?? prefix)
    )
  }

  #isLeft(rule: DecodedRule): boolean {
    return (this.#remaining.get(rule) ?? 0) > 0
  }

  #applyRule<Err extends E.StorageError>(
    { canFailWith, key, operation, prefix }: StorageBackend.Call<Err>,
    rule: DecodedRule
  ): Effect.Effect<void, Err | E.UnexpectedStorageError> {
    return Effect.suspend(() => {
      const remaining = this.#remaining.get(rule) ?? 0
      if (remaining <= 0) return Effect.void
      this.#remaining.set(rule, remaining - 1)
      this.#used.add(rule)
      const { delay, error } = rule
      const failing = error === "none" ? Effect.void : Effect.suspend(() => {
        const failure = error({ backend: this.name, operation, key: key ?? prefix ?? "" })
        return Effect.fail(canFailWith(failure) ? failure : impossible(failure, operation))
      })
      return delay === undefined ? failing : Effect.delay(failing, delay)
    })
  }
}

/** Whether a rule applies to a key. The keys of `removeAll` are not those of the call, so a rule for keys skips the call. */
const isKeyOf = (rule: DecodedRule, key: string | undefined): boolean =>
  rule.key === undefined ||
  (key !== undefined && (typeof rule.key === "function" ? rule.key(key) : rule.key === key))

const impossible = (error: E.StorageError, operation: Operation): E.UnexpectedStorageError =>
  new E.UnexpectedStorageError({
    key: error.key,
    reason: `a rule injects ${error._tag}, which ${operation} cannot fail with; choose another failure`,
    cause: error
  })

/** Applies the rules for bytes, and those for single keys of `removeAll`. */
const withBrokenBytes = (
  inner: StorageBackend.StorageBackend,
  chaos: Injector
): StorageBackend.StorageBackend => {
  const loading = { writes: false, canFailWith: isLoadError }
  return {
    ...inner,
    // Its bytes would not be seen.
    blob: undefined,
    open: (key, options) => {
      const call: StorageBackend.Call<E.LoadError> = { ...loading, operation: "open", key }
      return Effect.map(inner.open(key, options), (opened) => {
        if (!chaos.breaksStream(call)) return opened
        const { info, range, stream } = opened
        return StorageBackend.opened({
          info,
          range,
          stream: chaos.brokenStream(call, stream)
        })
      })
    },
    load: (key, options) =>
      Effect.tap(
        inner.load(key, options),
        ({ byteLength }) => chaos.moved({ ...loading, operation: "load", key }, byteLength)
      ),
    loadRanges: (key, ranges, options) =>
      Effect.tap(inner.loadRanges(key, ranges, options), (loaded) =>
        chaos.moved(
          { ...loading, operation: "loadRanges", key },
          loaded.reduce((sum, { byteLength }) => sum + byteLength, 0)
        )),
    save: (key, data, options) => {
      const call: StorageBackend.Call<E.SaveError> = { operation: "save", key, writes: true, canFailWith: isSaveError }
      if (data instanceof Uint8Array) {
        return Effect.zipRight(chaos.moved(call, data.byteLength), inner.save(key, data, options))
      }
      return withSource(chaos.brokenStream(call, data), (data) => inner.save(key, data, options))
    },
    removeAll: (keys) => {
      const apply = (key: string, isDue: (rule: DecodedRule) => boolean) =>
        Effect.mapError(
          chaos.apply(
            { operation: "removeAll", key, writes: true, canFailWith: isRemoveError },
            (rule) => rule.key !== undefined && isDue(rule)
          ),
          (error) => withPlace(error, { key })
        )
      return Effect.gen(function*() {
        const [refused, allowed] = yield* Effect.partition(keys, (key) => Effect.as(apply(key, isBefore), key))
        const remaining = yield* inner.removeAll(allowed)
        const gone = allowed.filter((key) => !remaining.some((error) => error.key === key))
        const [lost] = yield* Effect.partition(gone, (key) => apply(key, isAfter))
        return [...refused, ...remaining, ...lost]
      })
    }
  }
}

/** Runs an effect when exactly `count` bytes of a stream have passed, if it is wanted then. */
const afterBytes = <Buffer extends ArrayBufferLike, Err, E2, R>(
  count: number,
  stream: Stream.Stream<Uint8Array<Buffer>, Err, R>,
  isWanted: () => boolean,
  effect: Effect.Effect<void, E2>
): Stream.Stream<Uint8Array<Buffer>, Err | E2, R> =>
  Stream.suspend(() => {
    let remaining = count
    const rest = Stream.flatMap(stream, (bytes) => {
      const at = remaining
      remaining -= bytes.byteLength
      return at <= 0 || at > bytes.byteLength || !isWanted() ?
        Stream.make(bytes) :
        Stream.make(bytes.subarray(0, at)).pipe(
          Stream.concat(Stream.execute(effect)),
          Stream.concat(at < bytes.byteLength ? Stream.make(bytes.subarray(at)) : Stream.empty)
        )
    })
    return count === 0 ? Stream.concat(Stream.execute(effect), rest) : rest
  })
