/**
 * Cases of the contract suite that several storages under test cannot pass, each with the reason.
 */

/** For a storage whose keys get a prefix: the longest keys become longer than a key may be. */
export const withPrefix = {
  "keys are kept byte for byte and distinct: long segments": "the longest keys are too long with a prefix",
  "keys are kept byte for byte and distinct: nested folders": "the longest keys are too long with a prefix"
}

const inOrder = "the emulator does not list in the order of bytes"
const attributes = "of the attributes the emulator keeps only the content type and plain metadata"

/** For the npm emulator of S3. */
export const emulatorCannot: Readonly<Record<string, string>> = {
  "keys are kept byte for byte and distinct: spaces and punctuation": inOrder,
  "keys are kept byte for byte and distinct: percent signs": inOrder,
  "keys are kept byte for byte and distinct: upper-case and non-ASCII letters": inOrder,
  "keys are kept byte for byte and distinct: reserved file names": inOrder,
  "keys are kept byte for byte and distinct: hidden and internal file names": inOrder,
  "keys are kept byte for byte and distinct: long segments": inOrder,
  "keys are kept byte for byte and distinct: nested folders": inOrder,
  "every segment can be the name of a folder": inOrder,
  "keys are listed in UTF-8 byte order": inOrder,
  "entries returns the metadata that head returns": inOrder,
  "a prefix is a plain string: a part of a name, a whole key, or a folder": inOrder,
  "startAfter lists the keys after any string, within any prefix": inOrder,
  "listDirectory returns keys in UTF-8 byte order": inOrder,
  "attributes are returned by save, head and open, however the object was saved": attributes,
  "each attribute can be set alone": attributes,
  "metadata has any characters, up to 2 KiB": attributes,
  "copies and moves keep or replace attributes": attributes,
  "attributes are gone with the version that they were saved with": attributes,
  "a failed save leaves the old attributes": attributes,
  "objects and attributes of concurrent saves are never mixed": attributes,
  "attributes are kept under every kind of key": inOrder,
  "a random sequence of operations has the same results as on a map": inOrder
}
