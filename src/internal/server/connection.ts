/**
 * The connection on which a request came.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"

interface Destroyable {
  readonly destroy: () => unknown
}

const isDestroyable = (source: unknown): source is Destroyable =>
  typeof source === "object" && source !== null && "destroy" in source && typeof source.destroy === "function"

/**
 * Breaks it, where the server shows it (Node's does), and tells whether it did. An answer that has begun and cannot be
 * completed must end so: a server that ends it as any other lets the client take it for whole, or wait for the rest.
 */
export const breakOff = ({ source }: HttpServerRequest.HttpServerRequest): boolean => {
  if (!isDestroyable(source)) return false
  source.destroy()
  return true
}
