/**
 * A tensor with its bytes.
 */
import type { Dtype } from "./dtypes.js"
import { align, toFloat32, type ValuesOf, valuesOf } from "./elements.js"
import type { TensorInfo } from "./header.js"

/**
 * A tensor of one element type, with its bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface TensorOf<D extends Dtype> extends TensorInfo {
  readonly dtype: D
  /**
   * Little-endian, row-major. The caller owns them. Tensors from a stream may share one buffer with their neighbours: copy
   * the bytes before transferring the buffer to a worker, and to keep a small tensor for long.
   */
  readonly bytes: Uint8Array<ArrayBuffer>
  /**
   * The elements over the same memory as `bytes` (a copy on big-endian machines), or `undefined` if JavaScript does not
   * have their type: floats of 16 bits and less.
   */
  readonly values: ValuesOf<D>
  /**
   * The elements as 32-bit floats: `values` itself if it is a `Float32Array`, else a new array. Integers and 64-bit floats
   * are rounded once, to the nearest float (of two, to the even one), booleans become 0 and 1, a complex number becomes two floats. Elements of less than a byte are unpacked
   * from the lowest bits up.
   */
  readonly toFloat32: () => Float32Array<ArrayBuffer>
}

/**
 * A tensor with its bytes. `dtype` discriminates the union: if it is `"F32"`, `values` is a `Float32Array`.
 *
 * @since 0.1.0
 * @category models
 */
export type Tensor = { readonly [D in Dtype]: TensorOf<D> }[Dtype]

export const make = (info: TensorInfo, loaded: Uint8Array): Tensor => {
  const bytes = align(info.dtype, loaded)
  // The compiler cannot see that the array is the one for this dtype.
  return {
    ...info,
    bytes,
    values: valuesOf(info.dtype, bytes),
    toFloat32: () => toFloat32(info.dtype, bytes)
  } as Tensor
}
