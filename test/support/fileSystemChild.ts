/**
 * What the tests of FileSystemStorage need another process for: run as `tsx fileSystemChild.ts <what> <directory> …`.
 */
import { Effect, Exit, Stream } from "effect"
import * as fs from "node:fs"
import { FileSystemStorage, Storage, type StorageError } from "surfing-weights"

const [what = "", directory = "", ...rest] = process.argv.slice(2)

const say = (line: string) => Effect.sync(() => fs.writeSync(1, `${line}\n`))

/** Saves fifty keys over and over, each time with other content, until it is killed. Ready once it has saved one. */
const saveForever = Effect.gen(function*() {
  yield* Storage.save("model/layer_0.bin", new Uint8Array(64 * 1024))
  yield* say("ready")
  for (let round = 1;; round++) {
    yield* Effect.forEach(
      Array.from({ length: 50 }, (_, i) => i),
      (i) => Storage.save(`model/layer_${i}.bin`, new Uint8Array(64 * 1024 + i).fill(round % 256)),
      { concurrency: 8 }
    )
  }
})

/**
 * Saves, copies, moves and removes objects over and over until it is killed, each with one number in all of its bytes and in
 * its metadata, or, where the number is divisible by five, without attributes and as zeros.
 */
const saveVersionsForever = Effect.gen(function*() {
  const save = (key: string, version: number) =>
    Storage.save(
      key,
      new Uint8Array(1024).fill(version % 5 === 0 ? 0 : version),
      version % 5 === 0 ? {} : { attributes: { metadata: { version: String(version) } } }
    )
  yield* save("model/0", 1)
  yield* say("ready")
  for (let round = 1;; round++) {
    yield* Effect.forEach(
      Array.from({ length: 10 }, (_, i) => i),
      (i) =>
        Effect.gen(function*() {
          yield* save(`model/${i}`, (round + i) % 256)
          yield* Storage.copy(`model/${i}`, `copy/${i}`)
          yield* Storage.move(`model/${i}`, `moved/${i}`)
          if ((round + i) % 4 === 0) yield* Storage.remove(`moved/${i}`)
          yield* save(`model/${i}`, (round + i + 1) % 256)
        }),
      { concurrency: 4 }
    )
  }
})

/** Begins a save that never ends. */
const stall = Storage.save(
  "stalled",
  Stream.concat(
    Stream.make(new Uint8Array(1024)),
    Stream.drain(Stream.fromEffect(
      Effect.zipRight(say("ready"), Effect.never)
    ))
  )
)

/** Creates one key a round, each only if nobody else has, and prints how often it was the one. */
const createMany = Effect.gen(function*() {
  const outcomes = yield* Effect.forEach(
    Array.from({ length: Number(rest[0]) }, (_, i) => i),
    (i) => Effect.exit(Storage.save(`round_${i}`, new Uint8Array([process.pid % 256]), { ifNoneMatch: "*" })),
    { concurrency: 8 }
  )
  const won = outcomes.flatMap((outcome, i) => Exit.isSuccess(outcome) ? [i] : [])
  const lost = outcomes.filter((outcome) =>
    Exit.isFailure(outcome) && outcome.cause._tag === "Fail" && outcome.cause.error._tag === "ObjectAlreadyExists"
  )
  yield* say(JSON.stringify({ won, lost: lost.length }))
})

const operation = (name: string): Effect.Effect<unknown, StorageError.StorageError, Storage.Storage> => {
  const [what = "", key = ""] = name.split(":")
  switch (what) {
    case "load":
      return Storage.load(key)
    case "head":
      return Storage.head(key)
    case "save":
      return Storage.save(key, new Uint8Array([1]))
    case "remove":
      return Storage.remove(key)
    case "list":
      return Storage.list()
    default:
      return Effect.dieMessage(`no such operation: ${what}`)
  }
}

/** How an operation ends: the tag and message of its failure. */
const outcome = (name: string) =>
  Effect.match(operation(name), {
    onFailure: (error) => `${name} ${error._tag}: ${error.message}`,
    onSuccess: () => `${name} success`
  })

/** Does operations as a user who may do nothing, after the storage was built. */
const asNobody = Effect.zipRight(
  Effect.sync(() => process.setuid?.(65534)),
  Effect.forEach(rest, (name) => Effect.flatMap(outcome(name), say))
)

/** Does operations when no file can be opened any more. */
const withoutDescriptors = Effect.gen(function*() {
  // What is loaded at its first use must be loaded before.
  yield* Effect.ignore(Storage.load("warm-up"))
  const open: Array<number> = []
  try {
    for (;;) open.push(fs.openSync(directory, "r"))
  } catch {
    // That was the last.
  }
  const outcomes = yield* Effect.forEach(rest, outcome)
  for (const descriptor of open) fs.closeSync(descriptor)
  yield* Effect.forEach(outcomes, say)
})

const programs: Record<string, Effect.Effect<unknown, unknown, Storage.Storage>> = {
  saveForever,
  saveVersionsForever,
  stall,
  createMany,
  asNobody,
  withoutDescriptors
}

await Effect.runPromise(
  Effect.provide(
    programs[what] ?? Effect.dieMessage(`no such program: ${what}`),
    FileSystemStorage.layer({ directory })
  )
)
