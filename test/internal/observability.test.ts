/**
 * The metrics and spans of a storage.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Metric, Option, Schedule, Stream, TestClock, Tracer } from "effect"
import {
  ByteRange,
  MemoryStorage,
  Storage,
  StorageBackend,
  StorageChaos,
  StoragePrefix,
  StorageRetry
} from "surfing-weights"

/** A storage of a name of its own, which its metrics have as a label. */
const named = (folder: string, rules: ReadonlyArray<StorageChaos.Rule> = []) =>
  Effect.gen(function*() {
    const storage = yield* StoragePrefix.make(yield* StorageChaos.make(yield* MemoryStorage.make(), rules), folder)
    return { storage, backend: storage.backend.name }
  })

/** A tracer that keeps the spans that have ended. */
const tracing = () => {
  const spans: Array<
    { readonly name: string; readonly attributes: Record<string, unknown>; readonly failed: boolean }
  > = []
  const tracer = Tracer.make({
    context: (f) => f(),
    span: (name, parent, context, links, startTime, kind) => {
      const attributes = new Map<string, unknown>()
      const span: Tracer.Span = {
        _tag: "Span",
        spanId: String(spans.length),
        traceId: "trace",
        name,
        parent,
        context,
        links,
        kind,
        sampled: true,
        status: { _tag: "Started", startTime },
        attributes,
        attribute: (key, value) => void attributes.set(key, value),
        event: () => {},
        addLinks: () => {},
        end: (_, exit) =>
          void spans.push({ name, attributes: Object.fromEntries(attributes), failed: exit._tag === "Failure" })
      }
      return span
    }
  })
  return { spans, layer: Layer.setTracer(tracer) }
}

/** The metrics of a backend: their name with their other labels, and their value. */
const metricsOf = (backend: string): Record<string, unknown> =>
  Object.fromEntries(
    Metric.unsafeSnapshot()
      .filter(({ metricKey }) => metricKey.tags.some(({ key, value }) => key === "backend" && value === backend))
      .map(({ metricKey, metricState }) => {
        const labels = metricKey.tags.filter(({ key }) => key !== "backend").map(({ value }) => value).join(" ")
        return [`${metricKey.name} ${labels}`, metricState]
      })
  )

const count = (count: number) => ({ count })

describe("the metrics of a storage", () => {
  it.effect("count operations by outcome, and the bytes that they moved", () =>
    Effect.gen(function*() {
      const { backend, storage } = yield* named("metrics-of-operations")
      yield* storage.save("a", new Uint8Array(1000))
      yield* storage.save("b", Stream.make(new Uint8Array(10), new Uint8Array(5)))
      yield* storage.load("a")
      yield* storage.load("a", { range: ByteRange.make(0, 10) })
      yield* storage.loadRanges("a", [ByteRange.make(0, 10), ByteRange.last(5)])
      yield* Effect.flip(storage.load("c"))
      yield* Effect.flip(storage.load("../c"))
      yield* storage.exists("c")
      yield* Effect.flip(storage.save("d", Stream.fail("of the source")))
      expect(metricsOf(backend)).toMatchObject({
        "storage_operations save success": count(2),
        "storage_operations save failure": count(1),
        "storage_operations load success": count(2),
        "storage_operations load ObjectNotFound": count(1),
        "storage_operations load InvalidKey": count(1),
        "storage_operations loadRanges success": count(1),
        "storage_operations exists success": count(1),
        "storage_bytes save": count(1015),
        "storage_bytes load": count(1010),
        "storage_bytes loadRanges": count(15),
        "storage_operation_seconds load": count(4)
      })
    }))

  it.effect("measure how long operations take, also interrupted ones", () =>
    Effect.gen(function*() {
      const { backend, storage } = yield* named("metrics-of-time", [
        { operation: "head", delay: "2 seconds", times: Infinity, error: "none" }
      ])
      yield* storage.save("a", new Uint8Array(1))
      const fiber = yield* Effect.fork(storage.head("a"))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(fiber)
      const interrupted = yield* Effect.fork(storage.head("a"))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(interrupted)
      expect(metricsOf(backend)).toMatchObject({
        "storage_operations head success": count(1),
        "storage_operations head interrupted": count(1),
        "storage_operation_seconds head": { count: 2, sum: 3, min: 1, max: 2 }
      })
    }))

  it.effect("count a stream once, at its end, with the bytes that were read of it", () =>
    Effect.gen(function*() {
      const { backend, storage } = yield* named("metrics-of-streams", [{
        operation: "open",
        key: isBroken,
        afterBytes: 500
      }])
      yield* storage.save("whole", new Uint8Array(3 * 1024 ** 2))
      yield* storage.save("broken", new Uint8Array(1000))
      yield* Stream.runDrain(storage.stream("whole"))
      yield* Stream.runDrain(Stream.take(storage.stream("whole"), 1))
      yield* Effect.flip(Stream.runDrain(storage.stream("broken")))
      yield* Effect.scoped(Effect.flatMap(storage.open("whole"), ({ stream }) => Stream.runDrain(stream)))
      expect(metricsOf(backend)).toMatchObject({
        "storage_operations stream success": count(2),
        "storage_operations stream StorageUnavailable": count(1),
        "storage_bytes stream": count(4 * 1024 ** 2 + 500),
        "storage_operation_seconds stream": count(3),
        "storage_operations open success": count(1),
        "storage_bytes open": count(3 * 1024 ** 2)
      })
    }))

  it.effect("count defects, also of a backend that throws", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      const name = "metrics-of-defects"
      const bug = () => {
        throw new Error("a bug")
      }
      const storage = Storage.make({ ...backend, name, head: () => Effect.die("a bug"), load: bug, open: bug })
      for (const attempt of [storage.head("a"), storage.load("a"), Stream.runDrain(storage.stream("a"))]) {
        expect(Exit.isFailure(yield* Effect.exit(attempt))).toBe(true)
      }
      expect(metricsOf(name)).toMatchObject({
        "storage_operations head defect": count(1),
        "storage_operations load defect": count(1),
        "storage_operations stream defect": count(1)
      })
    }))

  it.effect("have the labels of Effect.tagMetrics", () =>
    Effect.gen(function*() {
      const { backend, storage } = yield* named("metrics-with-labels")
      const run = Effect.gen(function*() {
        yield* storage.save("a", Stream.make(new Uint8Array(10)))
        yield* storage.load("a")
        yield* Stream.runDrain(storage.stream("a"))
        yield* Effect.scoped(Effect.flatMap(storage.open("a"), ({ stream }) => Stream.runDrain(stream)))
        yield* Stream.run(Stream.make(new Uint8Array(3)), storage.sink("b"))
        yield* Stream.runDrain(storage.entries())
      })
      yield* Effect.tagMetrics(run, "tenant", "one")
      yield* Effect.tagMetrics(run, "tenant", "two")
      yield* run
      const metrics = metricsOf(backend)
      for (const tenant of [" one", " two", ""]) {
        expect(metrics, `the metrics of${tenant}`).toMatchObject({
          [`storage_operations save success${tenant}`]: count(2),
          [`storage_bytes save${tenant}`]: count(13),
          [`storage_operations load success${tenant}`]: count(1),
          [`storage_bytes load${tenant}`]: count(10),
          [`storage_operations stream success${tenant}`]: count(1),
          [`storage_bytes stream${tenant}`]: count(10),
          [`storage_operations open success${tenant}`]: count(1),
          [`storage_bytes open${tenant}`]: count(10),
          [`storage_operations entries success${tenant}`]: count(1),
          [`storage_operation_seconds load${tenant}`]: count(1)
        })
      }
    }))
})

const isBroken = (key: string) => key.endsWith("/broken")

describe("the span of an operation", () => {
  it.effect("exists for each operation where a tracer is installed", () => {
    const { layer, spans } = tracing()
    return Effect.gen(function*() {
      yield* Storage.save("k", new Uint8Array(3))
      yield* Storage.load("k")
      yield* Stream.runDrain(Storage.stream("k"))
      yield* Effect.either(Storage.load("missing"))
      yield* Effect.either(Storage.load("../k"))
      const attributes = (key: string, bytes: number) => ({
        "storage.backend": "Memory",
        "storage.key": key,
        "storage.bytes": bytes
      })
      expect(spans).toEqual([
        { name: "Storage.save", attributes: attributes("k", 3), failed: false },
        { name: "Storage.load", attributes: attributes("k", 3), failed: false },
        { name: "Storage.stream", attributes: attributes("k", 3), failed: false },
        { name: "Storage.load", attributes: attributes("missing", 0), failed: true },
        { name: "Storage.load", attributes: attributes("../k", 0), failed: true }
      ])
    }).pipe(Effect.provide(Layer.merge(MemoryStorage.layer(), layer)))
  })

  it.effect("does not exist where no tracer is installed", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const seen: Array<string> = []
      const service = Storage.make(StorageBackend.make(storage.backend, {
        head: (key) =>
          Effect.zipRight(
            Effect.map(Effect.option(Effect.currentSpan), (span) => seen.push(Option.isSome(span) ? "span" : "none")),
            storage.backend.head(key)
          )
      }))
      yield* Effect.exit(service.head("k"))
      expect(seen).toEqual(["none"])
    }))

  it.effect("has the number of attempts, where it was more than one", () => {
    const { layer, spans } = tracing()
    const storage = StorageRetry.layer(Schedule.recurs(3)).pipe(
      Layer.provide(StorageChaos.layer([
        { operation: "load", key: "k", times: 2 },
        { operation: "open", key: "k", afterBytes: 1 },
        { operation: "open", key: "k", afterBytes: 1 }
      ])),
      Layer.provide(MemoryStorage.layer())
    )
    return Effect.gen(function*() {
      yield* Storage.save("k", new Uint8Array(3))
      yield* Storage.load("k")
      yield* Storage.load("k")
      yield* Stream.runDrain(Storage.stream("k"))
      const attempts = spans.map(({ attributes }) => attributes["storage.attempts"])
      expect(attempts).toEqual([undefined, 3, undefined, 3])
    }).pipe(Effect.provide(Layer.merge(storage, layer)))
  })
})
