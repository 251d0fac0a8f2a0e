/**
 * What a case is, and what a store must do instead where it lacks the capabilities that a case needs.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Storage from "../../Storage.js"
import type { Capabilities } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import { inChunks, pattern } from "./bytes.js"
import { entriesOf, expectAbsent, expectFailure, expectNoChange, expectObject } from "./expect.js"

/** One rule of the contract, and the effect that checks whether a storage keeps it. */
export interface Case {
  /** What the rule is about, for instance `ranges`. */
  readonly group: string
  /** The rule as a sentence, different from that of every other case. */
  readonly name: string
  /** Needs an empty storage. Fails or dies where the storage breaks the rule. */
  readonly effect: Effect.Effect<void, unknown, Storage.Storage>
}

/** The check of a rule. */
export type Check = (storage: Storage.Service) => Effect.Effect<void, unknown, Scope.Scope>

interface Definition {
  readonly name: string
  /** The capabilities that the check needs. A store that lacks one of them must refuse what it covers. */
  readonly needs?: ReadonlyArray<keyof typeof refusals>
  readonly check: Check
}

export const group = (name: string, definitions: ReadonlyArray<Definition>): ReadonlyArray<Case> =>
  definitions.map((definition) => ({
    group: name,
    name: definition.name,
    effect: Effect.scoped(Effect.flatMap(Storage.Storage, (storage) => {
      const missing = definition.needs?.find((need) => !storage.backend.capabilities[need])
      return missing === undefined ? definition.check(storage) : refusals[missing](storage)
    }))
  }))

/** Every way to save `data` under a key. */
export const saves = (
  storage: Storage.Service,
  key: string,
  data: Uint8Array,
  options?: Storage.SaveOptions
): ReadonlyArray<readonly [string, Effect.Effect<unknown, StorageError>]> => [
  ["save of bytes", storage.save(key, data, options)],
  ["save of a stream", storage.save(key, inChunks(data), options)],
  ["sink", Stream.run(inChunks(data), storage.sink(key, options))]
]

const expectRefused = (
  attempts: ReadonlyArray<readonly [string, Effect.Effect<unknown, StorageError>]>,
  capability: keyof Capabilities
) =>
  Effect.forEach(
    attempts,
    ([what, attempt]) => expectFailure(`${what} without the capability ${capability}`, "UnsupportedOperation", attempt),
    { discard: true }
  )

const refusals = {
  write: (storage: Storage.Service) =>
    Effect.zipRight(
      expectRefused([
        ...saves(storage, "to", pattern(90, 10)),
        ["copy", storage.copy("from", "to")],
        ["move", storage.move("from", "to")],
        ["remove", storage.remove("from")],
        ["removeAll", storage.removeAll(["from"])]
      ], "write"),
      expectAbsent(storage, "to")
    ),

  list: (storage: Storage.Service) =>
    expectRefused([
      ["list", storage.list()],
      ["list of a prefix", storage.list("a")],
      ["entries", entriesOf(storage)],
      ["listDirectory", storage.listDirectory()]
    ], "list"),

  createOnly: (storage: Storage.Service) =>
    expectNoChange(storage, (key) =>
      expectRefused([
        ...saves(storage, key, pattern(92, 10), { ifNoneMatch: "*" }),
        ["copy", storage.copy("folder/old", key, { ifNoneMatch: "*" })],
        ["move", storage.move("folder/old", key, { ifNoneMatch: "*" })]
      ], "createOnly")),

  compareAndSwap: (storage: Storage.Service) =>
    expectNoChange(storage, (key) =>
      Effect.flatMap(
        currentEtag(storage, key),
        (ifMatch) => expectRefused(saves(storage, key, pattern(93, 10), { ifMatch }), "compareAndSwap")
      )),

  conditionalRemove: (storage: Storage.Service) =>
    expectNoChange(storage, (key) =>
      Effect.flatMap(
        currentEtag(storage, key),
        (ifMatch) => expectRefused([["remove", storage.remove(key, { ifMatch })]], "conditionalRemove")
      )),

  attributes: (storage: Storage.Service) =>
    Effect.gen(function*() {
      const attributes = { contentType: "text/plain" }
      yield* expectNoChange(storage, (key) =>
        expectRefused([
          ...saves(storage, key, pattern(94, 10), { attributes }),
          ["copy", storage.copy("folder/old", key, { attributes })],
          ["move", storage.move("folder/old", key, { attributes })]
        ], "attributes"))
      // Without attributes everything works, and none are reported as set.
      yield* storage.save("plain", pattern(94, 10))
      const { attributes: reported } = yield* expectObject(storage, "plain", pattern(94, 10))
      expect(reported?.metadata ?? {}, "metadata of an object without attributes").toEqual({})
    })
} satisfies Partial<Record<keyof Capabilities, Check>>

/** The etag of an object, or another string where there is no object. */
const currentEtag = (storage: Storage.Service, key: string) =>
  storage.head(key).pipe(
    Effect.map(({ etag }) => etag),
    Effect.catchTag("ObjectNotFound", () => Effect.succeed("an etag"))
  )
