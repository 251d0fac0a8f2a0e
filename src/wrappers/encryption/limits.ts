/**
 * What options are checked for before anything else of the encryption is loaded.
 */

/** The longest id of a master key, in bytes of UTF-8. */
export const maxIdSize = 128
