/**
 * Writes of a failover: on the primary alone, or on all storages.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import { unexpected, withPlace } from "../../internal/errors.js"
import * as Locks from "../../internal/keyedLock.js"
import { withSource } from "../../internal/source.js"
import type { Attributes, ObjectInfo, StorageBackend } from "../../StorageBackend.js"
import type { SaveError, StorageError } from "../../StorageError.js"
import type { Outcome, Write } from "../StorageFailover.js"
import type { Member, Members } from "./members.js"

type Writes = Pick<StorageBackend, Write>

export const writesOnPrimary = (members: Members): Writes => {
  const { primary } = members
  const { backend } = primary
  return {
    save: (key, data, options) => members.recorded(primary, backend.save(key, data, options)),
    remove: (key, options) => members.recorded(primary, backend.remove(key, options)),
    removeAll: (keys) => members.recorded(primary, backend.removeAll(keys)),
    copy: (from, to, options) => members.recorded(primary, backend.copy(from, to, options)),
    move: (from, to, options) => members.recorded(primary, backend.move(from, to, options))
  }
}

/** Each write on the primary, under its preconditions, and then on every backup without. */
export const writesOnAll = (
  members: Members,
  onWrite: (outcomes: ReadonlyArray<Outcome>) => Effect.Effect<void>
): Writes => {
  const replication = new Replication(members, onWrite)
  const primary = writesOnPrimary(members)
  return {
    save: (key, data, options) =>
      data instanceof Uint8Array
        ? replication.locked(
          [key],
          Effect.tap(primary.save(key, data, options), ({ attributes }) =>
            replication.run("save", [key], (backup) =>
              members.recorded(
                backup,
                Effect.asVoid(backup.backend.save(key, data, { attributes: supported(backup, attributes) }))
              )))
        )
        // A source may take any time, so it runs without the lock.
        : Effect.tap(
          primary.save(key, data, options),
          (info) =>
            replication.locked(
              [key],
              replication.run("save", [key], (backup) =>
                replication.replicateObject(info, backup))
            )
        ),
    remove: (key, options) =>
      replication.locked(
        [key],
        Effect.zipLeft(
          primary.remove(key, options),
          replication.run("remove", [key], (backup) => members.recorded(backup, backup.backend.remove(key, {})))
        )
      ),
    removeAll: (keys) =>
      replication.locked(
        keys,
        Effect.flatMap(primary.removeAll(keys), (remaining) => {
          const stay = new Set(remaining.map(({ key }) => key))
          const removed = keys.filter((key) => !stay.has(key))
          return Effect.map(
            replication.run(
              "removeAll",
              keys,
              (backup) => members.recorded(backup, backup.backend.removeAll(removed)),
              remaining
            ),
            (more) => [...remaining, ...Arr.dedupeWith(more, (one, other) => one.key === other.key)]
          )
        })
      ),
    copy: (from, to, options) =>
      replication.locked(
        [to],
        Effect.tap(primary.copy(from, to, options), (info) =>
          replication.run("copy", [to], (backup) => replication.replicateObject(info, backup)))
      ),
    move: (from, to, options) =>
      replication.locked(
        [from, to],
        Effect.tap(primary.move(from, to, options), (info) =>
          replication.run("move", [from, to], (backup) =>
            Effect.zipRight(
              replication.replicateObject(info, backup),
              members.recorded(backup, backup.backend.remove(from, {}))
            )))
      )
  }
}

class Replication {
  readonly #members: Members
  readonly #onWrite: (outcomes: ReadonlyArray<Outcome>) => Effect.Effect<void>
  readonly #locks = Locks.make()

  constructor(members: Members, onWrite: (outcomes: ReadonlyArray<Outcome>) => Effect.Effect<void>) {
    this.#members = members
    this.#onWrite = onWrite
  }

  /** Runs a write while it alone holds these keys. All writes take them in one order, so that none waits for another. */
  locked<A, Err, R>(keys: ReadonlyArray<string>, write: Effect.Effect<A, Err, R>): Effect.Effect<A, Err, R> {
    return [...new Set(keys)].sort().reduce((write, key) => this.#locks(key)(write), write)
  }

  /** Runs a write on every backup. Fails with the first failure when all have ended; its cause says on which backup. */
  run<Err extends StorageError>(
    operation: Write,
    keys: ReadonlyArray<string>,
    write: (backup: Member) => Effect.Effect<ReadonlyArray<Err> | void, Err>,
    ofPrimary: ReadonlyArray<StorageError> = []
  ): Effect.Effect<ReadonlyArray<Err>, Err> {
    const { backups, primary } = this.#members
    const outcome = ({ backend: { name } }: Member, failures: ReadonlyArray<StorageError>): Outcome => ({
      backend: name,
      operation,
      keys,
      failures: failures.map((error) => completed(error, name, operation, keys))
    })
    const onBackup = (backup: Member) =>
      Effect.match(write(backup), {
        onFailure: (error) => ({ backup, hasFailed: true, failures: [error] }),
        onSuccess: (remaining) => ({ backup, hasFailed: false, failures: remaining ?? [] })
      })
    return Effect.forEach(backups, onBackup, { concurrency: "unbounded" }).pipe(
      Effect.tap((results) =>
        this.#onWrite([
          outcome(primary, ofPrimary),
          ...results.map(({ backup, failures }) => outcome(backup, failures))
        ])
      ),
      Effect.flatMap((results) => {
        const caused = results.map(({ backup, failures, hasFailed }) => ({
          hasFailed,
          failures: failures.map((error) =>
            withPlace(error, { cause: completed(error, backup.backend.name, operation, keys) })
          )
        }))
        const failure = caused.find(({ hasFailed }) => hasFailed)?.failures[0]
        return failure === undefined
          ? Effect.succeed(caused.flatMap(({ failures }) => failures))
          : Effect.fail(failure)
      })
    )
  }

  /** Saves an object of the primary on a backup. */
  replicateObject({ etag, key, size }: ObjectInfo, backup: Member): Effect.Effect<void, SaveError> {
    return Effect.scoped(Effect.flatMap(
      this.#members.primary.backend.open(key, { ifMatch: etag }),
      ({ bytes, info, stream }) =>
        withSource(bytes ?? stream, (data) =>
          this.#members.recorded(
            backup,
            backup.backend.save(key, data, { size, attributes: supported(backup, info.attributes) })
          ))
    )).pipe(
      Effect.asVoid,
      Effect.catchTags({
        // The write that has overwritten or removed it since replicates that.
        PreconditionFailed: () => Effect.void,
        ObjectNotFound: () => Effect.void,
        ObjectNotModified: unexpected,
        InvalidRange: unexpected
      }),
      Effect.mapError((error) => withPlace(error, { key }))
    )
  }
}

/** These failures do not leave through an entrance that would complete them. */
const completed = (
  error: StorageError,
  backend: string,
  operation: Write,
  [first]: ReadonlyArray<string>
): StorageError => {
  const key = error.key === undefined || error.key === "" ? first : error.key
  return withPlace(
    error,
    key === undefined || operation === "removeAll"
      ? { backend, operation }
      : { backend, operation, key }
  )
}

const supported = ({ backend }: Member, attributes: Attributes | undefined): Attributes | undefined =>
  backend.capabilities.attributes ? attributes : undefined
