/**
 * The failure of a file that is no safetensors file, or of a tensor that it has not.
 */
import * as Schema from "effect/Schema"

/**
 * The bytes are not a safetensors file, or what was asked of one, or given to be one, cannot be. `field` is where:
 *
 * - `header size`, `header`, `__metadata__`: what the file begins with
 * - `name`, `dtype`, `shape`, `data_offsets`: what the header says of the tensor that `tensor` names
 * - `data`: the bytes after the header, or those given for a tensor
 * - `slice`: the part of a tensor that was asked for
 * - `index`, `weight_map`: the index of a sharded model
 *
 * @since 0.1.0
 * @category errors
 */
export class SafetensorsError extends Schema.TaggedError<SafetensorsError>("surfing-weights/SafetensorsError")(
  "SafetensorsError",
  {
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
    /** The name of the tensor, where it is one's. */
    tensor: Schema.optionalWith(Schema.String, { exact: true }),
    reason: Schema.String
  }
) {
  /** @since 0.1.0 */
  override get message(): string {
    const tensor = this.tensor === undefined ? "" : ` of tensor ${shown(this.tensor)}`
    return `safetensors ${JSON.stringify(this.key)}: ${this.field}${tensor}: ${this.reason}`
  }
}

/** Where in a file something is wrong. */
export type Field = SafetensorsError["field"]

/** A string out of a file, which may be anything, as a message can show it. */
export const shown = (text: string): string =>
  text.length > 100 ? `${JSON.stringify(text.slice(0, 100))}…` : JSON.stringify(text)
