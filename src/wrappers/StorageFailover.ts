/**
 * A primary storage and its backups, which hold the same objects. Reads use the first storage that is up; writes use the
 * primary, or all.
 *
 * - A read that fails because the storage is down (`isDown`, unless `shouldFailover` says otherwise) fails over to the next.
 *   Any other failure is the result, from a backup as from the primary, also `ObjectNotFound`. A backup that
 *   does not support the operation is skipped. Where every storage has failed, the failure is that of the primary.
 * - Each storage has a circuit breaker, which opens after `failureThreshold` such failures in a row: reads then skip the
 *   storage, at no cost, for `openDuration`. After that the breaker is half-open: one operation tries the storage while
 *   the others still skip it. A read that has no other storage to try tries it nevertheless.
 * - A stream that breaks resumes with its next byte on another storage if the object is provably the same there: by its
 *   checksum, or by an etag that S3 computed of the bytes. Otherwise the stream fails, and never joins the bytes of
 *   two objects. A listing fails over only before its first page.
 * - Each storage has its own etags: `ifMatch` with an etag of the primary fails with `PreconditionFailed` on a backup, and
 *   a save with the etag of a backup does so on the primary.
 *
 * Retries belong inside, around each storage: one that is retried for three minutes fails over after three minutes. A
 * bucket that may be down when the app starts needs `verify: false`.
 *
 * With `writes: "primary"` something else has to copy the objects to the backups. With `"all"` each write goes to the primary
 * under its preconditions, and then to every backup without: bytes are saved there again, and what was streamed, copied or
 * moved is read back from the primary. Attributes are replicated to backups that keep them. A backup that lacks a write
 * would later be read as if it were current, so a write fails where one backup does, when all were tried; the primary then
 * has it, and the `cause` of the failure names the backup. A backup also lacks a write that is interrupted after it was
 * carried out on the primary. Writes of one key through one failover keep their order on every storage; those of several
 * processes at once may not.
 *
 * @module StorageFailover
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { following } from "../internal/capabilities.js"
import { callback, count, decode, duration, oneOf } from "../internal/options.js"
import * as Storage from "../Storage.js"
import type { StorageBackend } from "../StorageBackend.js"
import * as E from "../StorageError.js"
import { Members, type Policy } from "./failover/members.js"
import { listOn, openOn } from "./failover/reads.js"
import { writesOnAll, writesOnPrimary } from "./failover/writes.js"

/**
 * When to use a backup, and what to write where.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * For which failures a read fails over to the next storage. With `ObjectNotFound` among them, an object that one storage
   * lacks is looked up on the next. Not called for mistakes of the caller (`InvalidKey`, `InvalidRange`). Default: `isDown`.
   */
  readonly shouldFailover?: ((error: E.StorageError) => boolean) | undefined
  /**
   * The number of such failures in a row after which the breaker of a storage opens. Failures of writes count, too; failures
   * about an object (`ObjectNotFound`, `ObjectAlreadyExists`, `PreconditionFailed`, `ObjectNotModified`) do not. Default: 5.
   */
  readonly failureThreshold?: number | undefined
  /** How long a breaker stays open. Default: 30 seconds. */
  readonly openDuration?: Duration.DurationInput | undefined
  /**
   * Where to save, remove, copy and move: on the `"primary"` alone, whatever its breaker, or on `"all"`. What is saved by
   * a presigned URL is on the primary alone. Default: `"primary"`.
   */
  readonly writes?: "primary" | "all" | undefined
  /**
   * Called with `writes: "all"`, after each write that was carried out on the primary, with the outcome on each storage, in
   * their order. The next write of the same keys waits for it. Default: nothing.
   */
  readonly onWrite?: ((outcomes: ReadonlyArray<Outcome>) => Effect.Effect<void>) | undefined
}

/**
 * The outcome of a write on one storage.
 *
 * @since 0.1.0
 * @category models
 */
export interface Outcome {
  /** The name of the storage. */
  readonly backend: string
  readonly operation: Write
  /** The keys that the write changes. */
  readonly keys: ReadonlyArray<string>
  /** Empty where the write succeeded. Of a `removeAll`, perhaps for some of the keys. */
  readonly failures: ReadonlyArray<E.StorageError>
}

/**
 * An operation that changes objects.
 *
 * @since 0.1.0
 * @category models
 */
export type Write = "save" | "remove" | "removeAll" | "copy" | "move"

type Storages = Arr.NonEmptyReadonlyArray<Storage.Service>

/**
 * One storage of several, the first of which is the primary. It has the capabilities of the primary, but holds objects
 * within objects only where all do. Fails with `InvalidOptions` also where a storage is read-only with `writes: "all"`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: {
  (options?: Options): (storages: Storages) => Effect.Effect<Storage.Service, E.InvalidOptions>
  (storages: Storages, options?: Options): Effect.Effect<Storage.Service, E.InvalidOptions>
} = dual(
  (args) => Array.isArray(args[0]),
  (storages: Storages, options: Options = {}): Effect.Effect<Storage.Service, E.InvalidOptions> =>
    Effect.gen(function*() {
      const settings = yield* decode("StorageFailover", schema, options)
      const [primary, ...backups] = storages
      const backends = [primary.backend, ...backups.map(({ backend }) => backend)] as const
      const readOnly = backends.find(({ capabilities }) => !capabilities.write)
      if (settings.writes === "all" && readOnly !== undefined) {
        return yield* new E.InvalidOptions({
          module: "StorageFailover",
          option: "writes",
          reason: `writes must be "primary" where a storage is read-only (${readOnly.name} is)`
        })
      }
      return Storage.make(makeBackend(backends, settings))
    })
)

/**
 * Provides one storage of those that several layers provide, the first of which is the primary. It needs what any of
 * them needs, and fails to build if one of them does. As everywhere, a layer that is given twice is built once.
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
  Layer.Layer.Error<Layers[number]> | E.InvalidOptions,
  Layer.Layer.Context<Layers[number]>
>
export function layer(
  [primary, ...backups]: Arr.NonEmptyReadonlyArray<Layer.Layer<Storage.Storage, unknown, unknown>>,
  options?: Options
): Layer.Layer<Storage.Storage, unknown, unknown> {
  const after = (storages: Storages): Layer.Layer<Storage.Storage, unknown, unknown> => {
    const next = backups[storages.length - 1]
    return next === undefined
      ? Layer.effect(Storage.Storage, make(storages, options))
      : Layer.flatMap(next, (context) => after([...storages, Context.get(context, Storage.Storage)]))
  }
  return Layer.flatMap(primary, (context) => after([Context.get(context, Storage.Storage)]))
}

/**
 * Provides one storage of those that several layers provide, with options from `Config`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { FileSystemStorage, MemoryStorage, StorageFailover } from "surfing-weights"
 *
 * const WeightsLive = StorageFailover.layerConfig(
 *   [FileSystemStorage.layer({ directory: "/mnt/models" }), MemoryStorage.layer()],
 *   { openDuration: Config.duration("WEIGHTS_OPEN_DURATION") }
 * )
 * ```
 */
export const layerConfig = <
  const Layers extends Arr.NonEmptyReadonlyArray<Layer.Layer<Storage.Storage, unknown, unknown>>
>(
  layers: Layers,
  options: Config.Config.Wrap<Options>
): Layer.Layer<
  Storage.Storage,
  Layer.Layer.Error<Layers[number]> | E.InvalidOptions | ConfigError,
  Layer.Layer.Context<Layers[number]>
> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), (options) => layer(layers, options)))

/**
 * Whether a failure is that of a storage which is down: it is unavailable or does not answer in time, retries exhausted or
 * not, or an object is truncated.
 *
 * @since 0.1.0
 * @category utils
 */
export const isDown = (error: E.StorageError): boolean =>
  error._tag === "StorageUnavailable" || error._tag === "StorageTimeout" ||
  (error._tag === "CorruptObject" && error.problem === "truncated")

interface Settings extends Policy {
  readonly writes: "primary" | "all"
  readonly onWrite: (outcomes: ReadonlyArray<Outcome>) => Effect.Effect<void>
}

const schema: Schema.Schema<Settings, Options> = Schema.Struct({
  shouldFailover: Schema.optionalWith(callback<Policy["shouldFailover"]>(), { default: () => isDown }),
  failureThreshold: Schema.optionalWith(count(), { default: () => 5 }),
  openDuration: Schema.optionalWith(duration(), { default: () => 30_000 }),
  writes: Schema.optionalWith(oneOf("primary", "all"), { default: () => "primary" as const }),
  onWrite: Schema.optionalWith(callback<Settings["onWrite"]>(), { default: () => () => Effect.void })
})

const makeBackend = (
  backends: Arr.NonEmptyReadonlyArray<StorageBackend>,
  settings: Settings
): StorageBackend => {
  const name = `Failover(${backends.map(({ name }) => name).join(", ")})`
  const members = new Members(name, backends, settings)
  const { primary } = members
  const listing = members.withCapability("list")
  const presigning = members.withCapability("presign")
  return {
    name,
    location: backends.map(({ name, location = name }) => location).join(" "),
    capabilities: following(() => ({
      ...primary.backend.capabilities,
      objectsWithinObjects: backends.every(({ capabilities }) => capabilities.objectsWithinObjects)
    })),
    open: openOn(members),
    load: (key, options) => members.read((backend) => backend.load(key, options)),
    loadRanges: (key, ranges, options) => members.read((backend) => backend.loadRanges(key, ranges, options)),
    head: (key) => members.read((backend) => backend.head(key)),
    entries: (options) => listOn(members, listing, (backend) => backend.entries(options)),
    keys: (options) => listOn(members, listing, (backend) => backend.keys(options)),
    listDirectory: (prefix) => members.read((backend) => backend.listDirectory(prefix), listing),
    ...(settings.writes === "all" ? writesOnAll(members, settings.onWrite) : writesOnPrimary(members)),
    presign: (key, options) =>
      options.method === "GET"
        ? members.inOrder(
          presigning,
          (member) => members.presigned(member, member.backend.presign(key, options)),
          (error, member) => members.shouldFailoverRead(error, member)
        )
        : members.presigned(primary, primary.backend.presign(key, options))
  }
}
