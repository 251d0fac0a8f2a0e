/**
 * What the tests of FileSystemStorage need another process for: run as `tsx fileSystemChild.ts <what> <directory> …`.
 */
import { Duration, Effect, Exit, Fiber, Stream } from "effect"
import { once } from "node:events"
import * as fs from "node:fs"
import { Worker } from "node:worker_threads"
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

/** Adds one to a number in an object, over and over, each time if nobody else has. */
const count = (times: number) =>
  Effect.gen(function*() {
    for (let counted = 0; counted < times;) {
      const { etag } = yield* Storage.head("n")
      const current = yield* Effect.either(Storage.load("n", { ifMatch: etag }))
      if (current._tag === "Left") continue
      const next = new TextEncoder().encode(String(Number(new TextDecoder().decode(current.right)) + 1))
      const saved = yield* Effect.either(Storage.save("n", next, { ifMatch: etag }))
      if (saved._tag === "Right") counted++
      else if (saved.left._tag !== "PreconditionFailed") yield* saved
    }
    yield* say("counted")
  })

/** Does so in worker threads. */
const countInThreads = (threads: number, times: string) =>
  Effect.promise(() =>
    Promise.all(Array.from({ length: threads }, async () => {
      // A worker does not know what its process registered.
      const [tsx, program] = [import.meta.resolve("tsx/esm/api"), import.meta.url].map((url) => JSON.stringify(url))
      const worker = new Worker(`import(${tsx}).then(({ register }) => (register(), import(${program})))`, {
        eval: true,
        argv: ["count", directory, times]
      })
      await once(worker, "exit")
    }))
  )

/** Saves or removes each object of which it knows the etag, and prints for which it was the first. */
const contend = (what: string) =>
  Effect.gen(function*() {
    const etags = JSON.parse(fs.readFileSync(`${directory}/etags`, "utf8")) as Record<string, string>
    const won = yield* Effect.filter(Object.entries(etags), ([key, etag]) =>
      Effect.match(
        what === "save"
          ? Storage.save(key, new TextEncoder().encode("saved"), { ifMatch: etag })
          : Storage.remove(key, { ifMatch: etag }),
        { onFailure: ({ _tag }) => _tag !== "PreconditionFailed", onSuccess: () => true }
      ), { concurrency: 4 })
    yield* say(JSON.stringify(won.map(([key]) => key)))
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
    case "saveWithAttributes":
      return Storage.save(key, new Uint8Array([1]), { attributes: { metadata: { key } } })
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

const userGroups = (rest[1] ?? "").split(",").map(Number)

const asUser = Effect.forEach(rest.slice(2), (name) => Effect.flatMap(outcome(name), say))

/** Opens files until no more can be opened; the effect closes them. */
const exhaust = Effect.gen(function*() {
  // What is loaded at its first use must be loaded before.
  yield* Effect.ignore(Storage.load("warm-up"))
  yield* Storage.save("warm-up", new Uint8Array(1))
  const open: Array<number> = []
  try {
    for (;;) open.push(fs.openSync(directory, "r"))
  } catch {
    // That was the last.
  }
  return Effect.sync(() => open.forEach((descriptor) => fs.closeSync(descriptor)))
})

/** Does operations when no file can be opened any more. */
const withoutDescriptors = Effect.gen(function*() {
  const release = yield* exhaust
  const outcomes = yield* Effect.forEach(rest, outcome, { concurrency: "unbounded" })
  yield* release
  yield* Effect.forEach(outcomes, say)
})

/** Begins operations when no file can be opened: the first half is interrupted, and the others end once some are closed. */
const waitForDescriptors = Effect.gen(function*() {
  const release = yield* exhaust
  const fibers = yield* Effect.forEach([...rest, ...rest], (name) => Effect.fork(outcome(name)))
  yield* Effect.sleep(300)
  const [took] = yield* Effect.timed(Fiber.interruptAll(fibers.slice(0, rest.length)))
  yield* release
  const outcomes = yield* Effect.forEach(fibers.slice(rest.length), Fiber.join)
  yield* Effect.forEach([`interrupted ${Duration.toMillis(took) < 2000 ? "at once" : "late"}`, ...outcomes], say)
})

/** Does an operation with many objects at once, each of a name and of a number of bytes, and prints how many failed. */
const many = (name: string, count: number, size: number) =>
  Effect.gen(function*() {
    const content = new Uint8Array(size)
    const save = (key: string) => Storage.save(key, content)
    const operations: Record<
      string,
      (key: string) => Effect.Effect<unknown, StorageError.StorageError, Storage.Storage>
    > = {
      save,
      load: Storage.load,
      head: Storage.head,
      list: (key) => Storage.list(key),
      copy: (key) => Storage.copy(key, `copy/${key}`),
      move: (key) => Storage.move(`copy/${key}`, `moved/${key}`),
      saveStream: (key) => Storage.save(`saved/${key}`, Storage.stream(key)),
      openAndSave: (key) =>
        Effect.scoped(Effect.flatMap(Storage.open(key), ({ stream }) => Storage.save(`opened/${key}`, stream))),
      saveWithin: (key) =>
        Storage.save(`outer/${key}`, Stream.tap(Storage.stream(key), (bytes) => Storage.save(`inner/${key}`, bytes))),
      attributes: (key) => Storage.save(`attributes/${key}`, content, { attributes: { contentType: "a/b" } })
    }
    const operation = operations[name] ?? (() => Effect.dieMessage(`no such operation: ${name}`))
    const failures = yield* Effect.forEach(
      Array.from({ length: count }, (_, i) => `${size}-${i}`),
      (key) => Effect.match(operation(key), { onFailure: (error) => [error.message], onSuccess: () => [] }),
      { concurrency: "unbounded" }
    )
    yield* say(`${name} ${count} ${[...new Set(failures.flat())].slice(0, 3).join("; ")}`)
  })

const manyAtOnce = Effect.forEach(rest, (given) => {
  const [name = "", count, size] = given.split(":")
  return many(name, Number(count), Number(size))
})

/** Builds a storage, and ends. */
const build = say("built")

const programs: Record<string, Effect.Effect<unknown, unknown, Storage.Storage>> = {
  saveForever,
  saveVersionsForever,
  stall,
  build,
  createMany,
  asNobody,
  asUser,
  count: count(Number(rest[0])),
  countInThreads: countInThreads(Number(rest[0]), rest[1] ?? ""),
  contend: contend(rest[0] ?? ""),
  withoutDescriptors,
  waitForDescriptors,
  manyAtOnce
}

// As another user from the start.
const user = Number(process.env["TEST_USER"] ?? 0)
if (user !== 0) {
  process.setgid?.(user)
  process.setuid?.(user)
}

// For `asUser <directory> <user> <group>,… <operation> …`, as that user from the start.
if (what === "asUser") {
  process.umask(0o022)
  process.setgroups?.(userGroups)
  process.setgid?.(userGroups[0] ?? 0)
  process.setuid?.(Number(rest[0]))
}

await Effect.runPromise(
  Effect.provide(
    programs[what] ?? Effect.dieMessage(`no such program: ${what}`),
    FileSystemStorage.layer({ directory, durability: what === "manyAtOnce" ? "relaxed" : "full" })
  )
)
