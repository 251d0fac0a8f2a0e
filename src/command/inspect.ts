/**
 * `inspect`: the tensors of a safetensors file or of a sharded model, by small reads of the headers, or the chunks of a manifest.
 */
import * as Effect from "effect/Effect"
import * as Storage from "../Storage.js"
import * as ModelChunks from "../weights/ModelChunks.js"
import * as Safetensors from "../weights/Safetensors.js"
import type { Failure } from "./failures.js"
import * as Output from "./output.js"
import * as Places from "./places.js"

export const inspect = (input: { readonly place: string }) =>
  Effect.gen(function*() {
    const place = yield* Places.open(input.place, "read")
    const isManifest = place.key.split("/").at(-1) === ModelChunks.manifestName
    const show: Effect.Effect<void, Failure, Output.Output | Storage.Storage> = place.isFolder || isManifest
      ? showChunks(isManifest ? place.key.slice(0, -ModelChunks.manifestName.length) : place.key)
      : place.key.endsWith(".json")
      ? Effect.flatMap(Safetensors.openSharded(place.key), showTensors)
      : Effect.flatMap(Safetensors.open(place.key), showTensors)
    yield* Effect.provideService(show, Storage.Storage, place.storage)
  })

const showTensors = ({ files, info, metadata, tensors }: Safetensors.SafetensorsFile) =>
  Effect.gen(function*() {
    const isSharded = files.size > 1
    const rows = [...tensors.values()].map(({ dtype, key, name, range, shape }) => ({
      json: { tensor: name, dtype, shape, bytes: range.endExclusive - range.start, key },
      cells: [
        name,
        dtype,
        `[${shape.join(", ")}]`,
        Output.formatBytes(range.endExclusive - range.start),
        ...(isSharded ? [key] : [])
      ]
    }))
    yield* printTable(rows)
    const elements = [...tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    const bytes = rows.reduce((sum, { json }) => sum + json.bytes, 0)
    yield* Output.result(
      { key: info.key, files: files.size, tensors: rows.length, elements, bytes, metadata },
      [
        `${Output.plural(rows.length, "tensor")}, ${elements} elements, ${Output.formatBytes(bytes)} in ${
          Output.plural(files.size, "file")
        }`,
        ...Object.entries(metadata).map(([name, value]) => `${name}: ${value}`)
      ].join("\n")
    )
  })

const showChunks = (folder: string) =>
  Effect.gen(function*() {
    const { manifest: { chunks } } = yield* ModelChunks.open(folder)
    yield* printTable(chunks.map(({ key, name, sha256, size, tensors }) => ({
      json: { chunk: name, key, size, sha256, tensors },
      cells: [
        name,
        Output.formatBytes(size),
        tensors === undefined ? "" : Output.plural(tensors.length, "tensor"),
        `sha256 ${sha256}`
      ]
    })))
    const bytes = chunks.reduce((sum, { size }) => sum + size, 0)
    yield* Output.result(
      { chunks: chunks.length, bytes },
      `${Output.plural(chunks.length, "chunk")}, ${Output.formatBytes(bytes)}`
    )
  })

/** Rows whose cells stand below each other. */
const printTable = (rows: ReadonlyArray<{ readonly json: Output.Json; readonly cells: ReadonlyArray<string> }>) => {
  const widths = (rows[0]?.cells ?? []).map((_, i) =>
    rows.reduce((width, { cells }) => Math.max(width, cells[i]?.length ?? 0), 0)
  )
  return Output.results(
    rows.map(({ cells, json }) => [json, cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join("  ").trimEnd()])
  )
}
