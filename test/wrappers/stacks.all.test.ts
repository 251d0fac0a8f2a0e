/**
 * The contract suite for several wrappers over one another: over a file system each of them once, in one stack.
 *
 * No response to a single removal is lost here: a conditional one may then fail, as the retry cannot tell what it did.
 */
import { Layer, Schedule } from "effect"
import {
  MemoryStorage,
  RetryPolicy,
  StorageCache,
  StorageChaos,
  StorageEncryption,
  StorageFailover,
  StorageLimit,
  StoragePrefix,
  StorageRetry,
  StorageTimeout
} from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { withPrefix } from "../support/contractSkips.js"
import { leftovers, storageOnDirectory } from "../support/directory.js"
import { keyOf } from "../support/encryption.js"

const MiB = 1024 * 1024

const timeouts: StorageTimeout.Options = { deadline: "10 minutes", idleTimeout: "5 minutes" }

StorageContract.suite("Prefix(Cache(Retry(Limit(Timeout(Encryption(FileSystem))))))", {
  layer: StoragePrefix.layer("f").pipe(
    Layer.provide(StorageCache.layer({ capacity: MiB })),
    Layer.provide(StorageRetry.layer(RetryPolicy.default)),
    Layer.provide(StorageLimit.layer({ concurrency: 8 })),
    Layer.provide(StorageTimeout.layer(timeouts)),
    Layer.provide(StorageEncryption.layer({ keys: [keyOf("test")] })),
    Layer.provideMerge(storageOnDirectory({ durability: "relaxed" }))
  ),
  leftovers,
  skip: withPrefix
})

const inDoubt = {
  "a thousand concurrent operations see whole objects and fail only with ObjectNotFound":
    "a load by stream that breaks while another fiber overwrites the object fails with PreconditionFailed",
  "failures name the operation, the stack of wrappers and the key: preconditions and sizes of writes":
    "a precondition that fails after a failed attempt may be the effect of that attempt"
}

StorageContract.suite("StorageRetry(Chaos(Memory))", {
  layer: StorageRetry.layer(Schedule.forever).pipe(
    Layer.provide(StorageChaos.layer([
      { operation: "open", times: 3 },
      { operation: "open", when: "after", times: 2 },
      { operation: "open", afterBytes: 0, times: 3 },
      { operation: "open", afterBytes: 3, times: 20 },
      { operation: "open", afterBytes: 100_000, times: 20 },
      { operation: ["load", "loadRanges", "head"], times: 9 },
      { operation: ["load", "loadRanges"], afterBytes: 1, times: 9 },
      { operation: ["entries", "keys", "listDirectory"], times: 9 },
      { operation: ["entries", "keys"], when: "after", times: 9 },
      { operation: ["remove", "removeAll"], times: 9 },
      { operation: "removeAll", when: "after", times: 9 },
      { operation: "removeAll", key: () => true, times: 20 }
    ])),
    Layer.provide(MemoryStorage.layer())
  ),
  skip: inDoubt
})

StorageContract.suite("StorageRetry(StorageFailover(StorageChaos(Memory)))", {
  layer: StorageRetry.layer(Schedule.forever).pipe(
    Layer.provide(StorageFailover.layer([
      Layer.provide(
        StorageChaos.layer([
          { operation: "open", times: 3 },
          { operation: "open", afterBytes: 3, times: 20 },
          { operation: ["load", "loadRanges", "head", "entries", "keys", "listDirectory"], times: 9 },
          { operation: ["remove", "removeAll"], times: 9 },
          { operation: "removeAll", when: "after", times: 9 },
          { operation: "removeAll", key: () => true, times: 20 }
        ]),
        MemoryStorage.layer()
      )
    ], { failureThreshold: 1 }))
  ),
  skip: inDoubt
})
