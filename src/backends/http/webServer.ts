/**
 * What plain web servers do that a weight server does not: pages for folders and for what is missing, responses without a length,
 * no `HEAD`.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { HttpCall, Response } from "../../internal/httpCall.js"
import { parseContentLength } from "../../internal/httpHeaders.js"
import * as E from "../../StorageError.js"
import { ask, type Exchange, pathOf, type Peer, send } from "./request.js"

/** A body without any length is gathered in memory, up to this size, in bytes. */
const maxGathered = 256 * 1024 * 1024

/**
 * Whether a response is a page in place of an object: the index of a folder, or what an app shows for every address. Then the
 * same address with a slash at its end, which is the key of no object, has a page, too.
 */
export const isPage = (peer: Peer, key: string, { headers, status }: Response): Effect.Effect<boolean, E.CommonError> =>
  (status === 200 || status === 206) && isHtml(headers["content-type"]) && !/\.x?html?$/i.test(key)
    ? Effect.map(
      ask(peer, { method: "HEAD", path: `${pathOf(peer, key)}/`, isFollowed: false }),
      (folder) => folder.status === 200 && isHtml(folder.headers["content-type"])
    )
    : Effect.succeed(false)

const isHtml = (contentType = ""): boolean => /^(text\/html|application\/xhtml\+xml)\b/i.test(contentType)

/** The same response with a length. */
const withLength = ({ headers }: Response, size: number): Response => ({
  status: 200,
  headers: { ...headers, "content-length": String(size) }
})

export const hasLength = ({ headers, status }: Response): boolean =>
  status !== 200 || parseContentLength(headers["content-length"]) !== undefined

/** The response to a `HEAD`; where that has no length or is refused, what the response to a `GET` says. */
export const headOf = (
  peer: Peer,
  path: string,
  head: Response
): Effect.Effect<Response, E.CommonError> =>
  hasLength(head) && head.status !== 405 && head.status !== 501
    ? Effect.succeed(head)
    : Effect.scoped(
      Effect.flatMap(send(peer, { method: "GET", path, headers: { range: "bytes=0-0" } }), ({ call, response }) => {
        const [, size] = /^bytes \*\/(\d+)$/.exec(response.headers["content-range"] ?? "") ?? []
        if (response.status === 416 && size !== undefined) return Effect.succeed(withLength(response, Number(size)))
        if (hasLength(response) || !isChunked(response)) return Effect.succeed(response)
        const count = Stream.runFold(call.stream(), 0, (size, { byteLength }) => size + byteLength)
        return Effect.map(count, (size) => withLength(response, size))
      })
    )

/** A response whose length is known, and its body if that had to be read for it. */
export interface Measured {
  readonly response: Response
  readonly bytes?: Uint8Array<ArrayBuffer>
}

/** The response to a `GET` with its length: by a `HEAD`, or else by its end where the encoding of the body proves that. */
export const measured = (
  peer: Peer,
  path: string,
  { call, response }: Exchange
): Effect.Effect<Measured, E.CommonError | E.UnsupportedOperation> => {
  // What is encoded is refused.
  if (hasLength(response) || response.headers["content-encoding"] !== undefined) return Effect.succeed({ response })
  return Effect.flatMap(Effect.option(ask(peer, { method: "HEAD", path })), (asked) => {
    const { headers, status } = Option.getOrElse(asked, (): Response => ({ status: 0, headers: {} }))
    const size = status === 200 ? parseContentLength(headers["content-length"]) : undefined
    if (size !== undefined && headers["etag"] === response.headers["etag"]) {
      return Effect.succeed({ response: withLength(response, size) })
    }
    return isChunked(response)
      ? Effect.map(gather(call), (bytes) => ({ response: withLength(response, bytes.byteLength), bytes }))
      : Effect.succeed({ response })
  })
}

/** Whether the end of the body is marked, so that it is not taken for one that broke off. */
const isChunked = ({ headers }: Response): boolean => /\bchunked\b/i.test(headers["transfer-encoding"] ?? "")

const gather = (call: HttpCall): Effect.Effect<Uint8Array<ArrayBuffer>, E.CommonError | E.UnsupportedOperation> =>
  Effect.suspend(() => {
    const parts: Array<Uint8Array> = []
    let size = 0
    const read = Stream.runForEach(call.stream(), (bytes) => {
      parts.push(bytes)
      size += bytes.byteLength
      return size > maxGathered ? Effect.fail(tooLarge()) : Effect.void
    })
    return Effect.map(read, () => {
      const whole = new Uint8Array(size)
      let at = 0
      for (const part of parts) {
        whole.set(part, at)
        at += part.byteLength
      }
      return whole
    })
  })

const tooLarge = () =>
  new E.UnsupportedOperation({
    reason:
      `the server does not tell the length of the object, which is over ${maxGathered} bytes; have it send Content-Length`
  })
