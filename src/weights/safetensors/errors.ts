/**
 * The error of `Safetensors`.
 */
import * as Schema from "effect/Schema"
import { quoted } from "../internal/text.js"

/**
 * The bytes are not a valid safetensors file, or a tensor cannot be read or written as asked. `field` says where:
 *
 * - `header size`, `header`, `__metadata__`: the start of the file
 * - `name`, `dtype`, `shape`, `data_offsets`: the entry of the tensor `tensor` in the header
 * - `data`: the bytes after the header, or those given for a tensor
 * - `slice`: the slice of a tensor that was asked for
 * - `index`, `weight_map`: the index of a sharded model
 *
 * @since 0.1.0
 * @category errors
 */
export class SafetensorsError extends Schema.TaggedError<SafetensorsError>("surfing-weights/SafetensorsError")(
  "SafetensorsError",
  {
    /** The key of the file. */
    key: Schema.String,
    field: Schema.Literal(
      "header size",
      "header",
      "__metadata__",
      "name",
      "dtype",
      "shape",
      "data_offsets",
      "data",
      "slice",
      "index",
      "weight_map"
    ),
    /** The name of the tensor, if the error concerns one. */
    tensor: Schema.optionalWith(Schema.String, { exact: true }),
    reason: Schema.String
  }
) {
  /** @since 0.1.0 */
  override get message(): string {
    const tensor = this.tensor === undefined ? "" : ` of tensor ${quoted(this.tensor)}`
    return `safetensors ${JSON.stringify(this.key)}: ${this.field}${tensor}: ${this.reason}`
  }
}

/** The part of a file that is invalid. */
export type Field = SafetensorsError["field"]

/** The error of one field of a file. */
export const invalid = (key: string, field: Field, reason: string, tensor?: string): SafetensorsError =>
  new SafetensorsError({ key, field, reason, ...(tensor !== undefined && { tensor }) })
