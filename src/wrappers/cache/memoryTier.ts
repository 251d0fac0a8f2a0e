/**
 * The objects that a cache has in memory, the least recently used of which are evicted.
 */
import { LRUCache } from "lru-cache"
import type { ObjectInfo } from "../../StorageBackend.js"

/** The metadata of a cached object, in whichever tier its bytes are. */
export interface Entry {
  readonly info: ObjectInfo
  /** When the storage last confirmed that the object is still this one, in milliseconds. */
  confirmedAt: number
}

export interface CachedObject {
  readonly entry: Entry
  /** All of its bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>
}

export class MemoryTier {
  readonly #objects: LRUCache<string, CachedObject>
  #evicted = 0

  /** `capacity` is in bytes. */
  constructor(capacity: number) {
    this.#objects = new LRUCache({
      maxSize: capacity,
      sizeCalculation: ({ bytes }: CachedObject) => Math.max(1, bytes.byteLength),
      dispose: (_, __, reason) => {
        if (reason === "evict") this.#evicted++
      }
    })
  }

  get(key: string): CachedObject | undefined {
    return this.#objects.get(key)
  }

  /** Whether this array is in the cache. */
  holds(key: string, bytes: Uint8Array): boolean {
    return this.#objects.peek(key)?.bytes === bytes
  }

  fits({ size }: ObjectInfo): boolean {
    return size <= this.#objects.maxSize
  }

  /** Keeps an object that fits. Returns how many others were evicted for it. */
  set(object: CachedObject): number {
    this.#evicted = 0
    this.#objects.set(object.entry.info.key, object)
    return this.#evicted
  }

  delete(key: string): void {
    this.#objects.delete(key)
  }

  contents(): { readonly objects: number; readonly size: number } {
    return { objects: this.#objects.size, size: this.#objects.calculatedSize }
  }
}
