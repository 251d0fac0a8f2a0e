/**
 * Options are decoded with messages that say what is allowed, and never show a secret.
 */
import type { FileSystem } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { type Duration, Effect, Redacted, Schedule, Schema } from "effect"
import { RetryPolicy } from "surfing-weights"
import * as Options from "../../src/internal/options.js"

interface Credentials {
  readonly id: string
  readonly secret: Redacted.Redacted
}

interface ModuleOptions {
  readonly name: string
  readonly size?: FileSystem.SizeInput | undefined
  readonly timeout?: Duration.DurationInput | undefined
  readonly mode?: "fast" | "safe" | undefined
  readonly concurrency?: number | undefined
  readonly verify?: boolean | undefined
  readonly credentials?: Credentials | undefined
  readonly servers?: ReadonlyArray<{ readonly host: string }> | undefined
  readonly retry?: RetryPolicy.RetryPolicy | undefined
  readonly onEvent?: ((event: string) => void) | undefined
}

const schema = Schema.Struct({
  name: Options.string("a name", (value) => value.length > 0),
  size: Schema.optionalWith(Options.size({ min: 1024, max: 2048, range: "1 KiB to 2 KiB" }), { default: () => 2048 }),
  timeout: Schema.optionalWith(Options.duration(), { default: () => 30_000 }),
  mode: Schema.optional(Options.oneOf("fast", "safe")),
  concurrency: Schema.optional(Options.count({ max: 16 })),
  verify: Schema.optional(Options.boolean),
  credentials: Schema.optional(Schema.Struct({ id: Options.string(), secret: Options.redacted })),
  servers: Schema.optional(Schema.Array(Schema.Struct({ host: Options.string("a host name") }))),
  retry: Options.retry,
  onEvent: Schema.optional(Options.callback<(event: string) => void>())
})

const decode = (options: ModuleOptions) => Options.decode("Module", schema, options)

/** Decodes what the types forbid, as a program in JavaScript could give it. */
const decodeUnknown = (options: unknown) =>
  Options.decode<unknown, unknown>("Module", schema as Schema.Schema<unknown, unknown>, options)

describe("options", () => {
  it.effect("are decoded with their defaults, sizes in bytes and durations in milliseconds", () =>
    Effect.gen(function*() {
      expect(yield* decode({ name: "n" })).toEqual({
        name: "n",
        size: 2048,
        timeout: 30_000,
        retry: RetryPolicy.default
      })
      const retry = Schedule.recurs(3)
      const onEvent = () => {}
      const credentials = { id: "id", secret: Redacted.make("secret") }
      const given = {
        name: "n",
        mode: "fast",
        concurrency: 4,
        verify: false,
        credentials,
        servers: [],
        onEvent
      } as const
      expect(yield* decode({ ...given, size: 1536n, timeout: "2 minutes", retry }))
        .toEqual({ ...given, size: 1536, timeout: 120_000, retry })
    }))

  it.effect("may each be undefined", () =>
    Effect.gen(function*() {
      const none = {
        size: undefined,
        timeout: undefined,
        mode: undefined,
        concurrency: undefined,
        verify: undefined,
        credentials: undefined,
        servers: undefined,
        retry: undefined,
        onEvent: undefined
      }
      expect(yield* decode({ name: "n", ...none })).toMatchObject({
        ...none,
        size: 2048,
        timeout: 30_000,
        retry: RetryPolicy.default
      })
    }))

  const secret = "hunter2"
  const wrong: ReadonlyArray<readonly [options: unknown, option: string, message: string]> = [
    [undefined, "", "Module: options must be an object"],
    [secret, "", "Module: options must be an object"],
    [[], "", "Module: options must be an object"],
    [{}, "name", "Module: name is required"],
    [{ name: "" }, "name", "Module: name must be a name (got \"\")"],
    [{ name: 3 }, "name", "Module: name must be a name (got 3)"],
    [{ name: "n", size: 3 }, "size", "Module: size must be a whole number of bytes from 1 KiB to 2 KiB (got 3 bytes)"],
    [{ name: "n", size: 1536.5 }, "size", "(got 1536.5 bytes)"],
    [{ name: "n", size: 4096n }, "size", "(got 4096 bytes)"],
    [{ name: "n", size: "1536" }, "size", "(got \"1536\")"],
    [{ name: "n", size: null }, "size", "(got null)"],
    [{ name: "n", timeout: 0 }, "timeout", "Module: timeout must be greater than zero and at most"],
    [{ name: "n", timeout: -5 }, "timeout", "(got -5)"],
    [{ name: "n", timeout: "30 days" }, "timeout", "(got 30d)"],
    [{ name: "n", timeout: Infinity }, "timeout", "(got Infinity)"],
    [{ name: "n", timeout: "soon" }, "timeout", "(got \"soon\")"],
    [{ name: "n", mode: "slow" }, "mode", "Module: mode must be \"fast\" or \"safe\" (got \"slow\")"],
    [{ name: "n", concurrency: 17 }, "concurrency", "Module: concurrency must be a whole number from 1 to 16 (got 17)"],
    [{ name: "n", verify: "yes" }, "verify", "Module: verify must be true or false (got \"yes\")"],
    [{ name: "n", retry: 3 }, "retry", "Module: retry must be a Schedule (got 3)"],
    [{ name: "n", onEvent: "log" }, "onEvent", "Module: onEvent must be a function (got \"log\")"],
    [
      { name: "n", password: secret },
      "password",
      "Module: password is not an option of this module; remove it or correct its name"
    ],
    [{ name: "n", credentials: secret }, "credentials", "Module: credentials must be an object"],
    [{ name: "n", credentials: { id: "id" } }, "credentials.secret", "Module: credentials.secret is required"],
    [
      { name: "n", credentials: { id: "id", secret } },
      "credentials.secret",
      "Module: credentials.secret must be a Redacted string, from Redacted.make"
    ],
    [
      { name: "n", credentials: { id: "id", secret: Redacted.make(secret), token: secret } },
      "credentials.token",
      "Module: credentials.token is not an option of this module; remove it or correct its name"
    ],
    [{ name: Redacted.make(secret) }, "name", "Module: name must be a name (got a Redacted value)"],
    [{ name: "n", servers: {} }, "servers", "Module: servers must be an array"],
    [
      { name: "n", servers: [{ host: "a" }, { host: 5 }] },
      "servers.1.host",
      "Module: servers.1.host must be a host name (got 5)"
    ]
  ]
  for (const [options, option, message] of wrong) {
    it.effect(`fail with InvalidOptions: ${message}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(decodeUnknown(options))
        expect(error).toMatchObject({ _tag: "InvalidOptions", module: "Module", option })
        expect(error.message).toContain(message)
        expect(JSON.stringify(error)).not.toContain(secret)
      }))
  }
})
