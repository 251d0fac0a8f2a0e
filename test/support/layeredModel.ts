/**
 * A small model of an embedding and two layers.
 */
import { Effect } from "effect"
import { FileSystemStorage, Safetensors } from "surfing-weights"
import { bytes } from "./content.js"

/** Saves it into a directory. */
export const saveLayeredModel = (directory: string, key: string) =>
  Safetensors.save(
    key,
    ["embed", "layers.0", "layers.1"].map((module) => ({
      name: `model.${module}.weight`,
      dtype: "U8" as const,
      shape: [3000],
      data: bytes(3000)
    }))
  ).pipe(Effect.provide(FileSystemStorage.layer({ directory })))
