/**
 * A directory as a storage: objects are plain files, that other programs read and write, too.
 */
import { FileSystem } from "@effect/platform"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect } from "effect"
import { deepStrictEqual, strictEqual } from "node:assert/strict"
import { FileSystemStorage, Storage } from "surfing-weights"

const program = (directory: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem

    // #region plain-files
    // The object is the file of the same name. Attributes are kept in the hidden folder .surfing-weights.
    yield* Storage.save("bert/config.json", new TextEncoder().encode(`{ "layers": 1 }`), {
      attributes: { metadata: { step: "1000" } }
    })
    const text = yield* fs.readFileString(`${directory}/bert/config.json`)

    // What another program writes is an object.
    yield* fs.writeFileString(`${directory}/bert/notes.txt`, "from an editor")
    const keys = yield* Storage.list()
    const { attributes } = yield* Storage.head("bert/config.json")
    // #endregion

    strictEqual(text, `{ "layers": 1 }`)
    deepStrictEqual(keys, ["bert/config.json", "bert/notes.txt"])
    deepStrictEqual(attributes, { contentType: "application/json", metadata: { step: "1000" } })
    yield* Console.log(`Objects: ${keys.join(", ")}`)
    yield* Console.log(`The content type of bert/config.json: ${attributes?.contentType}`)
    deepStrictEqual((yield* fs.readDirectory(directory)).sort(), [".surfing-weights", "bert"])

    // A failed save leaves the old object, and no other file.
    const failed = yield* Effect.flip(Storage.save("bert/config.json", new Uint8Array(1), { ifNoneMatch: "*" }))
    strictEqual(failed._tag, "ObjectAlreadyExists")

    // A file cannot be a folder, too.
    const conflict = yield* Effect.flip(Storage.save("bert/config.json/layers", new Uint8Array(1)))
    strictEqual(conflict._tag, "UnsupportedOperation")
    yield* Console.log(`A file and a folder: ${conflict.message.replaceAll(directory, "/weights")}`)

    // A link out of the directory is refused, and in no listing.
    yield* fs.symlink("/", `${directory}/bert/root`)
    const outside = yield* Effect.flip(Storage.load("bert/root/etc/hostname"))
    strictEqual(outside._tag, "AccessDenied")
    deepStrictEqual(yield* Storage.list("bert/root"), [])
    yield* Console.log(`A link: ${outside.message.replaceAll(directory, "/weights")}`)
  })

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "surfing-weights-" })

  // #region layer
  const WeightsLive = FileSystemStorage.layer({
    directory,
    // Do not create the directory: a wrong path is then a failure, and not an empty storage.
    create: false
  })
  // #endregion

  yield* Effect.provide(program(directory), WeightsLive)
})

main.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
