/**
 * Cases of the contract suite that several storages under test cannot pass, each with the reason.
 */

/** For a storage whose keys get a prefix: the longest keys become longer than a key may be. */
export const withPrefix = {
  "keys are kept byte for byte and distinct: long segments": "the longest keys are too long with a prefix",
  "keys are kept byte for byte and distinct: nested folders": "the longest keys are too long with a prefix"
}
