/**
 * What can be seen of `OpfsStorage` without a browser; test/browser has the rest.
 */
import { describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect } from "effect"
import { OpfsStorage, Storage } from "surfing-weights"

describe("OpfsStorage", () => {
  it.effect("fails with UnsupportedOperation where there is no origin private file system", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(OpfsStorage.make())
      expect(error).toMatchObject({ _tag: "UnsupportedOperation", backend: "Opfs(surfing-weights)", operation: "make" })
      expect(error.message).toBe(
        "make on Opfs(surfing-weights): there is no origin private file system here; use OpfsStorage in a browser, on a " +
          "page of https:// or localhost"
      )
    }))

  it.effect("has a directory within the file system", () =>
    Effect.gen(function*() {
      for (const directory of ["", "/", "../up", "a//b"]) {
        const error = yield* Effect.flip(OpfsStorage.make({ directory }))
        expect(error).toMatchObject({ _tag: "InvalidOptions", module: "OpfsStorage", option: "directory" })
      }
      const layer = OpfsStorage.layerConfig({ directory: Config.string("WEIGHTS_DIRECTORY") })
      const error = yield* Effect.flip(Effect.provide(Storage.list(), layer)).pipe(
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["WEIGHTS_DIRECTORY", "models/bert/"]])))
      )
      expect(error).toMatchObject({ backend: "Opfs(models/bert)" })
    }))
})
