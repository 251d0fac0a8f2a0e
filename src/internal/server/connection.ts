/**
 * The connection on which a request came.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"

interface Destroyable {
  readonly destroy: () => unknown
}

const isDestroyable = (value: unknown): value is Destroyable =>
  typeof value === "object" && value !== null && "destroy" in value && typeof value.destroy === "function"

/**
 * Breaks it, where the server shows it (Node's does), and tells whether it did. An answer that has begun and cannot be
 * completed must end so: a server that ends it as any other lets the client take it for whole, or wait for the rest.
 */
export const breakOff = ({ source }: HttpServerRequest.HttpServerRequest): boolean => {
  const socket = typeof source === "object" && source !== null && "socket" in source ? source.socket : undefined
  if (!isDestroyable(socket)) return false
  socket.destroy()
  return true
}
