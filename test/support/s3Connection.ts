/**
 * A connection to no server at all, for tests of what is done with an answer.
 */
import type { Readable } from "node:stream"
import type { Connection } from "../../src/internal/s3/exchange.js"
import { overHandler } from "../../src/internal/s3/transport.js"

/** A connection whose answer has this body. */
export const connectionTo = (body: Readable, idleLimit = 1000): Connection => ({
  transport: overHandler({ handle: () => Promise.resolve({ response: { statusCode: 200, headers: {}, body } }) }),
  endpoint: {
    protocol: "http:",
    hostname: "s3.example",
    path: "/b",
    headers: {},
    signingName: "s3",
    signingRegion: "r"
  },
  // It signs nothing: nobody looks.
  signer: { sign: (request: unknown) => Promise.resolve(request) } as unknown as Connection["signer"],
  idleLimit,
  clockOffset: 0,
  bareEtags: false
})
