/**
 * The type of every operation says how it can fail. What is handled leaves the type, so the compiler knows what is left.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Duration, Effect, Layer, Schema } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { MemoryStorage, Storage, StorageChaos, StorageError } from "surfing-weights"

// #region catch-tag
const defaults = new TextEncoder().encode(`{ "layers": 12 }`)

// ObjectNotFound is handled and gone from the type; the other failures of a load are left.
type Left = Exclude<StorageError.LoadError, StorageError.ObjectNotFound>

const config: Effect.Effect<Uint8Array, Left, Storage.Storage> = Storage.load("config.json").pipe(
  Effect.catchTag("ObjectNotFound", () => Effect.succeed(defaults))
)
// #endregion

interface Answer {
  readonly status: number
  readonly body?: Uint8Array | string
}

// #region catch-tags
/** What a server answers when it is asked for weights. `never` says that every failure is handled. */
const answer = (key: string, etag = ""): Effect.Effect<Answer, never, Storage.Storage> =>
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
    // The rest has a message for whoever reads the log.
    Effect.catchAll(({ message }) => Effect.as(Effect.logError(message), { status: 500 }))
  )
// #endregion

const StorageLive = StorageChaos.layer([
  { key: "late.bin", error: (struck) => new StorageError.StorageTimeout({ ...struck, limit: Duration.seconds(5) }) },
  { key: "secret.bin", error: (struck) => new StorageError.AccessDenied({ ...struck, reason: "no credentials" }) }
]).pipe(Layer.provide(MemoryStorage.layer()))

const program = Effect.gen(function*() {
  deepStrictEqual(yield* config, defaults)
  yield* Console.log("A missing config.json is the default one")

  const { etag } = yield* Storage.save("layer_0.bin", new Uint8Array([1, 2, 3]))
  const answers = yield* Effect.all({
    found: answer("layer_0.bin"),
    unchanged: answer("layer_0.bin", etag),
    missing: answer("layer_1.bin"),
    invalid: answer("../etc/passwd"),
    late: answer("late.bin"),
    secret: answer("secret.bin")
  })
  for (const [what, { status }] of Object.entries(answers)) yield* Console.log(`${status} ${what}`)
  deepStrictEqual(answers.found.body, new Uint8Array([1, 2, 3]))
  deepStrictEqual(Object.values(answers).map(({ status }) => status), [200, 304, 404, 400, 504, 403])

  // A failure is a schema: it can be sent, and caught by its tag where it arrives.
  const failure = yield* Effect.flip(Storage.load("layer_1.bin"))
  const json = yield* Schema.encode(Schema.parseJson(StorageError.StorageError))(failure)
  const arrived = yield* Schema.decode(Schema.parseJson(StorageError.StorageError))(json)
  const key = yield* Effect.fail(arrived).pipe(
    Effect.catchTag("ObjectNotFound", (error) => Effect.succeed(error.key))
  )
  strictEqual(key, "layer_1.bin")
  strictEqual(arrived.message, failure.message)
  yield* Console.log(`Sent and received: ${arrived.message}`)
})

program.pipe(Effect.provide(StorageLive), NodeRuntime.runMain)
