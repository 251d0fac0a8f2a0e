/**
 * OpenDAL on the files of a directory, whose Rust core does the work outside of this process's one thread: shown beside
 * `node:fs`.
 */
import type { Operator } from "opendal"
import type { See } from "./nodeFs.js"
import type { Contestant } from "./rows.js"

/** The package is loaded only into the process that measures it. */
export const opendalIn = async (directory: string): Promise<Operator> => {
  const { Operator } = await import("opendal")
  return new Operator("fs", { root: directory })
}

export const byOpendal = (what: string, does: (opendal: Operator, see: See) => Promise<unknown>): Contestant => ({
  what: `OpenDAL: ${what}`,
  open: async (directory) => {
    const opendal = await opendalIn(directory)
    return { run: (see) => does(opendal, see) }
  }
})
