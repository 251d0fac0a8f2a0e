/**
 * Folders of a storage, as users name them.
 */

/** What the keys in a folder start with. A slash at the end of the name makes no difference; the root has no name. */
export const keyPrefix = (folder: string): string => folder === "" || folder.endsWith("/") ? folder : `${folder}/`
