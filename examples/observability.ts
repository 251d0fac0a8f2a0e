/**
 * A span for each operation, and metrics, exported with OpenTelemetry: here to memory, in an app to its collector.
 */
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import { SpanStatusCode } from "@opentelemetry/api"
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  PeriodicExportingMetricReader
} from "@opentelemetry/sdk-metrics"
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { Effect, Layer, Schedule } from "effect"
import assert from "node:assert/strict"
import { MemoryStorage, Storage, StorageCache, StorageChaos, StorageRetry } from "surfing-weights"

const spans = new InMemorySpanExporter()
const metrics = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)

// #region telemetry
const TelemetryLive = NodeSdk.layer(() => ({
  resource: { serviceName: "weights" },
  spanProcessor: new SimpleSpanProcessor(spans),
  metricReader: new PeriodicExportingMetricReader({ exporter: metrics, exportIntervalMillis: 60_000 })
}))
// #endregion

// A storage that is unavailable twice, with retries, and a cache in front of it.
const WeightsLive = StorageCache.layer({ capacity: 1024 ** 2, freshness: "immutable" }).pipe(
  Layer.provide(StorageRetry.layer(Schedule.recurs(3))),
  Layer.provide(StorageChaos.layer([{ operation: "open", times: 2 }])),
  Layer.provide(MemoryStorage.layer())
)

const app = Effect.gen(function*() {
  yield* Storage.save("layer_0.bin", new Uint8Array(1000))
  yield* Storage.load("layer_0.bin")
  yield* Storage.load("layer_0.bin")
  yield* Effect.ignore(Storage.load("layer_1.bin"))
}).pipe(Effect.withSpan("app"))

const seen = await app.pipe(
  Effect.map(() => spans.getFinishedSpans().filter(({ name }) => name !== "app")),
  // When this layer is closed, the metrics that are not exported yet are exported.
  Effect.provide(Layer.merge(WeightsLive, TelemetryLive)),
  Effect.runPromise
)

console.log("spans")
for (const { attributes, duration: [seconds, nanoseconds], name, status } of seen) {
  const shown = Object.entries(attributes)
    .filter(([key]) => key.startsWith("storage."))
    .map(([key, value]) => `${key.slice("storage.".length)}=${String(value)}`)
  const milliseconds = (seconds * 1e3 + nanoseconds / 1e6).toFixed(1)
  console.log(
    `  ${name}, ${milliseconds} ms, ${status.code === SpanStatusCode.ERROR ? "failed" : "ok"}: ${shown.join(" ")}`
  )
}

console.log("metrics")
const collected = metrics.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics))
for (const { dataPoints, descriptor } of collected.filter(({ descriptor }) => descriptor.name.startsWith("storage_"))) {
  for (const { attributes, value } of dataPoints) {
    const labels = [attributes["operation"], attributes["outcome"]].filter((label) => label !== undefined).join(", ")
    const shown = typeof value === "object" ? `${value.count} in ${(value.sum ?? 0).toFixed(4)} s` : value
    console.log(`  ${descriptor.name}${labels === "" ? "" : ` (${labels})`}: ${shown}`)
  }
}

const loads = seen.filter(({ name }) => name === "Storage.load").map(({ attributes }) => attributes)
assert.deepEqual(loads.map((attributes) => attributes["storage.cache"]), ["miss", "hit", "miss"])
assert.deepEqual(loads.map((attributes) => attributes["storage.bytes"]), [1000, 1000, 0])
assert.deepEqual(loads.map((attributes) => attributes["storage.attempts"]), [3, undefined, undefined])
assert(collected.some(({ descriptor }) => descriptor.name === "storage_operations"))
