/**
 * Capabilities that follow those of another storage, which may find out later what its server does not support.
 */
import type { Capabilities } from "../StorageBackend.js"

/** The capabilities that `current` returns whenever one is looked at. */
export const following = (current: () => Capabilities): Capabilities => ({
  get write() {
    return current().write
  },
  get list() {
    return current().list
  },
  get createOnly() {
    return current().createOnly
  },
  get compareAndSwap() {
    return current().compareAndSwap
  },
  get conditionalRemove() {
    return current().conditionalRemove
  },
  get objectsWithinObjects() {
    return current().objectsWithinObjects
  },
  get attributes() {
    return current().attributes
  },
  get presign() {
    return current().presign
  }
})
