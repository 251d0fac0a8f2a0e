/**
 * Attributes between this library and boto3, the AWS SDK for Python, where that is installed.
 */
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { S3Storage, type Storage } from "surfing-weights"
import { bytes } from "../support/content.js"
import { makeBucket, options, server } from "../support/s3Bucket.js"

const hasBoto3 = server.kind !== "emulator" && spawnSync("python3", ["-c", "import boto3"]).status === 0

/** Copies the attributes that it reads of `ours` to `theirs`, and prints what it read. */
const script = `
import base64, boto3, json, sys
from email.header import decode_header, make_header
place = json.loads(sys.argv[1])
s3 = boto3.client("s3", endpoint_url=place["endpoint"], region_name=place["region"],
                  aws_access_key_id=place["id"], aws_secret_access_key=place["secret"])
head = s3.head_object(Bucket=place["bucket"], Key="ours")
names = ["ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage"]
fields = {name: head[name] for name in names}
metadata = {name: str(make_header(decode_header(value))) for name, value in head["Metadata"].items()}
encoded = {name: value if value.isascii() else "=?UTF-8?B?%s?=" % base64.b64encode(value.encode()).decode()
           for name, value in metadata.items()}
s3.put_object(Bucket=place["bucket"], Key="theirs", Body=b"theirs", Metadata=encoded, **fields)
print(json.dumps([fields, metadata]))
`

const attributes: Storage.Attributes = {
  contentType: "application/json",
  cacheControl: "max-age=60",
  contentDisposition: "inline",
  contentEncoding: "gzip",
  contentLanguage: "fr",
  metadata: { framework: "jax", owner: "Zoë Müller 😀" }
}

it.scopedLive.skipIf(!hasBoto3)(
  `boto3 reads the attributes that a storage sets, and a storage those that boto3 sets${
    hasBoto3 ? "" : " (skipped: it needs boto3, and a server other than the emulator)"
  }`,
  () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const storage = yield* S3Storage.make({ ...options, bucket })
      yield* storage.save("ours", bytes(10), { attributes })
      const { accessKeyId: id, endpoint, region, secretAccessKey: secret } = server
      const place = JSON.stringify({ bucket, endpoint, region, id, secret })
      const read: unknown = JSON.parse(execFileSync("python3", ["-c", script, place], { encoding: "utf8" }))
      expect(read).toEqual([
        {
          ContentType: "application/json",
          CacheControl: "max-age=60",
          ContentDisposition: "inline",
          ContentEncoding: "gzip",
          ContentLanguage: "fr"
        },
        attributes.metadata
      ])
      expect((yield* storage.head("theirs")).attributes).toEqual(attributes)
    })
)
