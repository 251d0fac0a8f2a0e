/**
 * The contract suite, on a bucket of the emulator. What the emulator cannot do is skipped by name here, and tested on a
 * real server by S3Storage.all.test.ts.
 */
import { S3Storage } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { options, server } from "../support/s3Bucket.js"
import { onBucket } from "../support/s3Contract.js"

const inOrder = "the emulator does not list in the order of bytes"
const conditions = "the emulator ignores the conditions of a save"

const emulatorCannot: Readonly<Record<string, string>> = {
  "keys of spaces and punctuation are kept byte for byte, and no other spelling reaches them": inOrder,
  "keys of percent signs are kept byte for byte, and no other spelling reaches them": inOrder,
  "keys of letters of all kinds are kept byte for byte, and no other spelling reaches them": inOrder,
  "keys of names that a file system reserves are kept byte for byte, and no other spelling reaches them": inOrder,
  "keys of names that a store may want for itself are kept byte for byte, and no other spelling reaches them": inOrder,
  "keys of long segments are kept byte for byte, and no other spelling reaches them": inOrder,
  "keys with folders of any name and depth are kept byte for byte": inOrder,
  "whatever can be a key can be a folder": inOrder,
  "keys are listed in the order of their bytes": inOrder,
  "a prefix is a plain string: it may end within a name, be a whole key, or end with a slash": inOrder,
  "startAfter begins after any string, whether it is a key or not, and within any prefix": inOrder,
  "a directory is in the order of bytes": inOrder,
  "ifNoneMatch where there is an object is ObjectAlreadyExists, and changes nothing": conditions,
  "of eight fibers that create one object, exactly one does": conditions,
  "ifMatch with the etag of what was replaced is PreconditionFailed, and changes nothing": conditions,
  "ifMatch with any other string is PreconditionFailed, and changes nothing": conditions,
  "five fibers that each count up ten times by compare and swap reach fifty": conditions,
  "ifMatch is looked at before ifNoneMatch, and both before the range": "the emulator looks at ifNoneMatch first",
  "a copy with ifNoneMatch makes the target, or is ObjectAlreadyExists and changes nothing": conditions,
  "a move with ifNoneMatch makes the target, or is ObjectAlreadyExists and changes nothing": conditions,
  "of eight fibers that copy to one target with ifNoneMatch, exactly one does": conditions,
  "of eight fibers that move to one target with ifNoneMatch, exactly one does": conditions,
  "any sequence of operations gives what a map would give": `${inOrder} and ${conditions}`
}

StorageContract.suite("S3Storage", {
  ...onBucket((bucket) => S3Storage.layer({ ...options, bucket })),
  ...(server.kind === "emulator" && { skip: emulatorCannot })
})
