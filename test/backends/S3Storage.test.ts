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
const removals = "the emulator ignores the condition of a removal"
const attributes = "of the attributes the emulator keeps only the content type and plain metadata"

const emulatorCannot: Readonly<Record<string, string>> = {
  "keys are kept byte for byte and distinct: spaces and punctuation": inOrder,
  "keys are kept byte for byte and distinct: percent signs": inOrder,
  "keys are kept byte for byte and distinct: upper-case and non-ASCII letters": inOrder,
  "keys are kept byte for byte and distinct: reserved file names": inOrder,
  "keys are kept byte for byte and distinct: hidden and internal file names": inOrder,
  "keys are kept byte for byte and distinct: long segments": inOrder,
  "keys are kept byte for byte and distinct: nested folders": inOrder,
  "every segment can be the name of a folder": inOrder,
  "keys are listed in UTF-8 byte order": inOrder,
  "a prefix is a plain string: a part of a name, a whole key, or a folder": inOrder,
  "startAfter lists the keys after any string, within any prefix": inOrder,
  "listDirectory returns keys in UTF-8 byte order": inOrder,
  "ifNoneMatch on an existing object fails with ObjectAlreadyExists and changes nothing": conditions,
  "of eight concurrent creations of one object, exactly one succeeds": conditions,
  "ifMatch with a stale etag fails with PreconditionFailed and changes nothing": conditions,
  "ifMatch with any other string fails with PreconditionFailed and changes nothing": conditions,
  "fifty increments by compare-and-swap lose none": conditions,
  "ifMatch is checked before ifNoneMatch, and both before the range": "the emulator looks at ifNoneMatch first",
  "a copy with ifNoneMatch creates the target, or fails with ObjectAlreadyExists and changes nothing": conditions,
  "a move with ifNoneMatch creates the target, or fails with ObjectAlreadyExists and changes nothing": conditions,
  "of eight concurrent attempts to copy to one target with ifNoneMatch, exactly one succeeds": conditions,
  "of eight concurrent attempts to move to one target with ifNoneMatch, exactly one succeeds": conditions,
  "a sink applies the preconditions of its save": conditions,
  "failures name the operation, the stack of wrappers and the key: preconditions and sizes of writes": conditions,
  "ifMatch on a removal removes the object with this etag": removals,
  "ifMatch on a removal fails with PreconditionFailed for any other etag, also of a missing object": removals,
  "a removal with ifMatch never removes a newer version": removals,
  "attributes are returned by save, head and open, however the object was saved": attributes,
  "each attribute can be set alone": attributes,
  "metadata has any characters, up to 2 KiB": attributes,
  "copies and moves keep or replace attributes": attributes,
  "attributes are gone with the version that they were saved with": attributes,
  "a failed save leaves the old attributes": attributes,
  "objects and attributes of concurrent saves are never mixed": attributes,
  "attributes are kept under every kind of key": inOrder,
  "a random sequence of operations has the same results as on a map": `${inOrder} and ${conditions}`
}

StorageContract.suite("S3Storage", {
  ...onBucket((bucket) => S3Storage.layer({ ...options, bucket })),
  ...(server.kind === "emulator" && { skip: emulatorCannot })
})
