/**
 * Cases of the contract suite that several storages under test cannot pass, each with the reason.
 */

/** For a storage whose keys get a prefix: the longest keys become longer than a key may be. */
export const withPrefix = {
  "keys of long segments are kept byte for byte, and no other spelling reaches them":
    "the longest keys are too long with a prefix",
  "keys with folders of any name and depth are kept byte for byte": "the longest keys are too long with a prefix"
}
