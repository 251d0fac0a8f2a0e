/**
 * What to look at where a storage fails: the message, the fields, the cause, and at level debug each retry.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Cause, Console, Effect, Logger, LogLevel, Redacted, Schedule } from "effect"
import { ok, strictEqual } from "node:assert/strict"
import { S3Storage, Storage } from "surfing-weights"

// Otherwise the AWS SDK warns on Node 20.
process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] = "true"

// Nothing listens there.
const WeightsLive = S3Storage.layer({
  bucket: "model-weights",
  endpoint: "http://127.0.0.1:9",
  credentials: { accessKeyId: "weights", secretAccessKey: Redacted.make("a secret") },
  retry: Schedule.recurs(1)
})

const app = Effect.provide(Storage.list("bert/"), WeightsLive)

// #region diagnose
const diagnosed = app.pipe(
  // The message is for people, and the fields are for programs.
  Effect.tapError(({ _tag, backend, message, operation }) => Console.error(_tag, { operation, backend }, message)),
  // The cause, with its traces, is for the log.
  Effect.tapErrorCause((cause) => Effect.logDebug(Cause.pretty(cause, { renderErrorCause: true }))),
  // At level debug, the first retries are logged, too.
  Logger.withMinimumLogLevel(LogLevel.Debug)
)
// #endregion

Effect.gen(function*() {
  const error = yield* Effect.flip(diagnosed)
  strictEqual(error._tag, "StorageUnavailable")
  ok(error.cause instanceof Error)
}).pipe(NodeRuntime.runMain)
