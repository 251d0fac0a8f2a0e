/**
 * The saver of a bucket by itself, with limits that a test can reach.
 */
import { Effect } from "effect"
import type { Checksum } from "../../src/backends/s3/checksums.js"
import { type Client, connect } from "../../src/backends/s3/client.js"
import { Conditions } from "../../src/backends/s3/conditions.js"
import { Getter } from "../../src/backends/s3/get.js"
import { Lister } from "../../src/backends/s3/lister.js"
import { limits, type UploadParts } from "../../src/backends/s3/parts.js"
import { Bucket, type Signer } from "../../src/backends/s3/request.js"
import { Saver } from "../../src/backends/s3/saver.js"
import { fromHandler, type Transport } from "../../src/backends/s3/transport.js"
import { partSize } from "./s3Faults.js"
import { quick } from "./timing.js"

export interface SaverOptions extends Partial<UploadParts> {
  /** In bytes. */
  readonly largestCopy?: number
  readonly checksum?: Checksum
  /** Default: the request handler of the client. */
  readonly transport?: Transport
  /** Default: that of the client. */
  readonly signer?: Signer
}

export const makeSaver = (
  client: Client,
  bucket: string,
  { checksum, largestCopy = limits.largestCopy, signer, transport, ...parts }: SaverOptions
) =>
  Effect.map(connect(client, bucket, 10_000, undefined), (connected) => {
    const made = new Bucket({
      name: bucket,
      headers: { create: {}, access: {}, copySource: {} },
      transport: transport ?? fromHandler(client.config.requestHandler),
      idleTimeout: 10_000,
      ...connected,
      ...(signer !== undefined && { signer })
    })
    const saving = {
      bucket: made,
      getter: new Getter(made, new Lister(made, quick)),
      policy: quick,
      checksum,
      conditions: new Conditions(made, quick),
      defaults: {}
    }
    return new Saver(saving, { partSize, uniformParts: false, concurrency: 4, ...parts }, largestCopy)
  })
