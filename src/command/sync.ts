/**
 * `sync`: makes a folder like another one.
 */
import * as Effect from "effect/Effect"
import * as MemoryStorage from "../backends/MemoryStorage.js"
import { selects } from "./patterns.js"
import * as Places from "./places.js"
import { transfer } from "./transfer.js"

export const sync = (input: {
  readonly from: string
  readonly to: string
  readonly delete: boolean
  readonly dryRun: boolean
  readonly checksum: boolean
  readonly include: ReadonlyArray<string>
  readonly exclude: ReadonlyArray<string>
}) =>
  Effect.gen(function*() {
    const { checksum, dryRun, exclude, include } = input
    const from = yield* Places.openFolder(input.from, "read")
    const to = yield* Places.openFolder(input.to, dryRun ? "read" : "write").pipe(
      // What a directory that is not there would receive is what an empty storage would.
      Effect.catchIf(
        (error) => dryRun && error._tag === "StorageNotFound",
        () => Effect.map(MemoryStorage.make(), (storage) => ({ ...from, storage, key: "", text: input.to }))
      )
    )
    yield* Places.refuseOverlap(from, to)
    yield* transfer(yield* Places.folderOf(from), yield* Places.folderOf(to), {
      checksum,
      delete: input.delete,
      dryRun,
      filter: selects(include, exclude)
    })
  })
