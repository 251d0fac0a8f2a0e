/**
 * The type of every operation lists its failures. A failure that is handled leaves the type, so the compiler knows which
 * remain.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Duration, Effect, Layer, Schema } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { MemoryStorage, Storage, StorageChaos, StorageError } from "surfing-weights"

// #region catch-tag
const defaults = new TextEncoder().encode(`{ "layers": 12 }`)

// ObjectNotFound is handled, so it is no longer in the type. The other failures of a load remain.
type Remaining = Exclude<StorageError.LoadError, StorageError.ObjectNotFound>

const config: Effect.Effect<Uint8Array, Remaining, Storage.Storage> = Storage.load("config.json").pipe(
  Effect.catchTag("ObjectNotFound", () => Effect.succeed(defaults))
)
// #endregion

interface Response {
  readonly status: number
  readonly body?: Uint8Array | string
}

// #region catch-tags
/** The response of a server to a request for weights. `never` means that every failure is handled. */
const respond = (key: string, etag = ""): Effect.Effect<Response, never, Storage.Storage> =>
  Storage.load(key, { ifNoneMatch: etag }).pipe(
    Effect.map((body) => ({ status: 200, body })),
    Effect.catchTags({
      ObjectNotModified: () => Effect.succeed({ status: 304 }),
      InvalidKey: ({ reason }) => Effect.succeed({ status: 400, body: reason }),
      AccessDenied: () => Effect.succeed({ status: 403 }),
      ObjectNotFound: () => Effect.succeed({ status: 404 }),
      StorageUnavailable: () => Effect.succeed({ status: 503 }),
      StorageTimeout: () => Effect.succeed({ status: 504 })
    }),
    // All others are logged.
    Effect.catchAll(({ message }) => Effect.as(Effect.logError(message), { status: 500 }))
  )
// #endregion

const StorageLive = StorageChaos.layer([
  { key: "late.bin", error: (struck) => new StorageError.StorageTimeout({ ...struck, limit: Duration.seconds(5) }) },
  { key: "secret.bin", error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no credentials" }) }
]).pipe(Layer.provide(MemoryStorage.layer()))

const program = Effect.gen(function*() {
  deepStrictEqual(yield* config, defaults)
  yield* Console.log("config.json is missing: the defaults are used")

  const { etag } = yield* Storage.save("layer_0.bin", new Uint8Array([1, 2, 3]))
  const responses = yield* Effect.all({
    found: respond("layer_0.bin"),
    unchanged: respond("layer_0.bin", etag),
    missing: respond("layer_1.bin"),
    invalid: respond("../etc/passwd"),
    late: respond("late.bin"),
    secret: respond("secret.bin")
  })
  for (const [name, { status }] of Object.entries(responses)) yield* Console.log(`${status} ${name}`)
  deepStrictEqual(responses.found.body, new Uint8Array([1, 2, 3]))
  deepStrictEqual(Object.values(responses).map(({ status }) => status), [200, 304, 404, 400, 504, 403])

  // #region as-json
  // A failure is a schema: it can be sent as JSON, and caught by its tag where it is received.
  const failure = yield* Effect.flip(Storage.load("layer_1.bin"))
  const json = yield* Schema.encode(Schema.parseJson(StorageError.StorageError))(failure)
  const received = yield* Schema.decode(Schema.parseJson(StorageError.StorageError))(json)
  const key = yield* Effect.fail(received).pipe(
    Effect.catchTag("ObjectNotFound", (error) => Effect.succeed(error.key))
  )
  // #endregion
  strictEqual(key, "layer_1.bin")
  strictEqual(received.message, failure.message)
  yield* Console.log(`Sent and received: ${received.message}`)
})

program.pipe(Effect.provide(StorageLive), NodeRuntime.runMain)
