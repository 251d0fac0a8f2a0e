import { assert, describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { ByteRange, MemoryStorage, ObjectKey, Storage, StorageBackend, StorageError } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

type Change = (memory: StorageBackend.StorageBackend) => Partial<StorageBackend.StorageBackend>

/** A store in memory that has only the primitives of its own, the rest derived from them, and then something changed. */
const changed = (change: Change): Layer.Layer<Storage.Storage> =>
  Layer.effect(
    Storage.Storage,
    Effect.map(MemoryStorage.make(), ({ backend }) => {
      const { capabilities, entries, name, open, remove, save } = backend
      return Storage.make(StorageBackend.make({ name, capabilities, entries, open, remove, save, ...change(backend) }))
    })
  )

const MiB = 1024 * 1024
const here = { backend: "Memory", operation: "test" }

const concat = (pieces: Iterable<Uint8Array>): Uint8Array => new Uint8Array(Buffer.concat([...pieces]))

const bytesOf = <E, R>(data: Uint8Array | Stream.Stream<Uint8Array, E, R>): Effect.Effect<Uint8Array, E, R> =>
  data instanceof Uint8Array ? Effect.succeed(data) : Effect.map(Stream.runCollect(data), concat)

/** Keeps each object under another spelling of its key, and shows it under the last key it was saved with. */
const respelled = (spell: (key: string) => string): Change => (memory) => {
  const shown = new Map<string, string>()
  return {
    open: (key, options) =>
      Effect.map(memory.open(spell(key), options), (opened) => ({ ...opened, info: { ...opened.info, key } })),
    save: (key, data, options) => {
      shown.set(spell(key), key)
      return Effect.map(memory.save(spell(key), data, options), (info) => ({ ...info, key }))
    },
    remove: (key) => memory.remove(spell(key)),
    entries: ({ prefix = "", startAfter = "" }) =>
      memory.entries({}).pipe(
        Stream.map((info) => ({ ...info, key: shown.get(info.key) ?? info.key })),
        Stream.filter(({ key }) => key.startsWith(prefix) && ObjectKey.compare(key, startAfter) > 0)
      )
  }
}

const withEntries = (
  change: (
    entries: StorageBackend.StorageBackend["entries"],
    options: StorageBackend.ListOptions
  ) => Stream.Stream<StorageBackend.ObjectInfo, StorageError.ListError>
): Change =>
({ entries }) => ({ entries: (options) => change(entries, options) })

/** Shows every object with another etag than its own. */
const withEtag = (etagOf: (info: StorageBackend.ObjectInfo) => string): Change => ({ entries, open, save }) => {
  const change = (info: StorageBackend.ObjectInfo) => ({ ...info, etag: etagOf(info) })
  return {
    open: (key, options) => Effect.map(open(key, options), (opened) => ({ ...opened, info: change(opened.info) })),
    save: (key, data, options) => Effect.map(save(key, data, options), change),
    entries: (options) => Stream.map(entries(options), change)
  }
}

/** Gathers a stream in an object that anyone can see, and saves it when it is complete. */
const gatheringAt = (placeOf: (key: string) => string): Change => ({ remove, save }) => ({
  save: (key, data, options) => {
    const place = placeOf(key)
    const show = (bytes: Uint8Array) => Effect.as(save<never, never>(place, bytes, {}), bytes)
    return data instanceof Uint8Array ? save(key, data, options) : show(new Uint8Array(0)).pipe(
      Effect.flatMap((none) => Stream.runFoldEffect(data, none, (before, piece) => show(concat([before, piece])))),
      Effect.tap(() => remove(place)),
      Effect.flatMap((whole) => save<never, never>(key, whole, options))
    )
  }
})

/** What a store does wrong, the change that makes it so, the case that has to notice, and what it has to say. */
const broken: ReadonlyArray<readonly [what: string, change: Change, rule: string, says: RegExp]> = [
  [
    "ignores ifNoneMatch",
    ({ save }) => ({ save: (key, data) => save(key, data, {}) }),
    "ifNoneMatch on an existing object fails with ObjectAlreadyExists and changes nothing",
    /expected the failure ObjectAlreadyExists, but it succeeded/
  ],
  [
    "looks at ifNoneMatch before it saves, not when it does",
    ({ head, save }) => ({
      save: (key, data, options) =>
        Effect.gen(function*() {
          const existing = Option.getOrUndefined(yield* Effect.option(head(key)))
          yield* StorageBackend.checkSave(key, existing, options, here)
          yield* Effect.yieldNow()
          return yield* save(key, data, {})
        })
    }),
    "of eight concurrent creations of one object, exactly one succeeds",
    /how the other fibers failed/
  ],
  [
    "ignores ifNoneMatch on a copy",
    ({ copy }) => ({ copy: (from, to) => copy(from, to, {}) }),
    "a copy with ifNoneMatch creates the target, or fails with ObjectAlreadyExists and changes nothing",
    /expected the failure ObjectAlreadyExists, but it succeeded/
  ],
  [
    "ignores ifMatch on a save",
    ({ save }) => ({ save: (key, data) => save(key, data, {}) }),
    "ifMatch with a stale etag fails with PreconditionFailed and changes nothing",
    /expected the failure PreconditionFailed, but it succeeded/
  ],
  [
    "takes ifMatch * for any etag",
    ({ save }) => ({ save: (key, data, options) => save(key, data, options.ifMatch === "*" ? {} : options) }),
    "ifMatch with any other string fails with PreconditionFailed and changes nothing",
    /ifMatch "\*".*expected the failure PreconditionFailed, but it succeeded/
  ],
  [
    "looks at ifMatch before it saves, not when it does",
    ({ head, save }) => ({
      save: (key, data, options) =>
        Effect.gen(function*() {
          const existing = Option.getOrUndefined(yield* Effect.option(head(key)))
          yield* StorageBackend.checkSave(key, existing, options, here)
          yield* Effect.yieldNow()
          return yield* save(key, data, {})
        })
    }),
    "fifty increments by compare-and-swap lose none",
    /load of "counter": expected 2 bytes/
  ],
  [
    "ignores ifMatch on a load",
    ({ open }) => ({ open: (key, { ifMatch: _, ...options }) => open(key, options) }),
    "ifMatch on a load succeeds with the etag of the object and fails with PreconditionFailed otherwise",
    /expected the failure PreconditionFailed, but it succeeded/
  ],
  [
    "ignores ifNoneMatch on a load",
    ({ open }) => ({ open: (key, { ifNoneMatch: _, ...options }) => open(key, options) }),
    "ifNoneMatch on a load fails with ObjectNotModified for the etag of the object and succeeds otherwise",
    /expected the failure ObjectNotModified, but it succeeded/
  ],
  [
    "decodes percent signs in keys",
    respelled((key) => key.replace(/%([0-7][0-9a-f])/gi, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)))),
    "keys are kept byte for byte and distinct: percent signs",
    /the listing/
  ],
  [
    "takes a plus for a space",
    respelled((key) => key.replaceAll("+", " ")),
    "keys are kept byte for byte and distinct: spaces and punctuation",
    /the listing/
  ],
  [
    "takes a backslash for a slash",
    respelled((key) => key.replaceAll("\\", "/")),
    "keys are kept byte for byte and distinct: spaces and punctuation",
    /exists of "back\/slash", never saved/
  ],
  [
    "folds upper and lower case",
    respelled((key) => key.toLowerCase()),
    "keys are kept byte for byte and distinct: upper-case and non-ASCII letters",
    /the listing/
  ],
  [
    "normalizes Unicode",
    respelled((key) => key.normalize("NFC")),
    "keys are kept byte for byte and distinct: upper-case and non-ASCII letters",
    /the listing/
  ],
  [
    "drops trailing dots and spaces",
    respelled((key) => key.replace(/[. ]+$/, "") || key),
    "keys are kept byte for byte and distinct: reserved file names",
    /exists of ".*", never saved/
  ],
  [
    "cuts long segments",
    respelled((key) => key.split("/").map((segment) => segment.slice(0, 255)).join("/")),
    "keys are kept byte for byte and distinct: long segments",
    /the listing/
  ],
  [
    "cannot tell a long segment from the start of it",
    respelled((key) => key.length === 1024 ? key.slice(0, 1023) : key),
    "keys are kept byte for byte and distinct: long segments",
    /the listing/
  ],
  [
    "keeps names for itself",
    ({ entries }) => ({
      entries: (options) => Stream.filter(entries(options), ({ key }) => !key.startsWith(".surfing-weights"))
    }),
    "keys are kept byte for byte and distinct: hidden and internal file names",
    /the listing/
  ],
  [
    "takes a folder for an object",
    ({ head, keys }) => ({
      head: (key) =>
        Effect.catchTag(
          head(key),
          "ObjectNotFound",
          (error) =>
            Stream.runCount(Stream.catchAll(keys({ prefix: `${key}/` }), () => Stream.empty)).pipe(
              Effect.filterOrFail((count) => count > 0, () => error),
              Effect.as({ key, size: 0, lastModified: new Date(), etag: "folder" })
            )
        )
    }),
    "a folder is not an object",
    /head of "folder", which is not there: expected the failure ObjectNotFound, but it succeeded/
  ],
  [
    "refuses an object under another without naming both",
    ({ capabilities, keys, save }) => ({
      capabilities: { ...capabilities, objectsWithinObjects: false },
      save: (key, data, options) =>
        Effect.flatMap(
          Stream.runCollect(keys({})),
          (all) =>
            [...all].some((other) => other.startsWith(`${key}/`) || key.startsWith(`${other}/`))
              ? Effect.fail(new StorageError.UnsupportedOperation({ ...here, key, reason: "something is in the way" }))
              : save(key, data, options)
        )
    }),
    "an object beside a folder of the same name is kept, or refused with both keys in the message",
    /the message of save of bytes of upper_one\/lower_one beside upper_one, without upper_one\/lower_one/
  ],
  [
    "loses the upper object when one is saved under it",
    ({ remove, save }) => ({
      save: (key, data, options) => Effect.zipRight(remove(key.split("/")[0] ?? key), save(key, data, options))
    }),
    "an object beside a folder of the same name is kept, or refused with both keys in the message",
    /there is no such object/
  ],
  [
    "shows a stream before its save ends",
    gatheringAt((key) => key),
    "an object is not visible before its save ends",
    /load of "new\/folder\/object", which is not there: expected the failure ObjectNotFound, but it succeeded/
  ],
  [
    "leaves what a failed save had gathered",
    gatheringAt((key) => `${key}.part`),
    "a failure of the source is returned unchanged, and nothing is saved",
    /\.part/
  ],
  [
    "leaves what an interrupted save had gathered",
    gatheringAt((key) => `${key}.part`),
    "a save interrupted after any number of chunks changes nothing and closes its source",
    /\.part/
  ],
  [
    "gathers all saves of one key in one place",
    ({ save }) => {
      const gathered = new Map<string, Array<Uint8Array>>()
      return {
        save: (key, data, options) => {
          if (data instanceof Uint8Array) return save(key, data, options)
          gathered.set(key, [])
          return Effect.flatMap(
            Stream.runForEach(data, (piece) => Effect.sync(() => gathered.get(key)?.push(piece))),
            () => save(key, concat(gathered.get(key) ?? []), options)
          )
        }
      }
    },
    "two concurrent saves never interleave",
    /the object after two saves: .* none of/
  ],
  [
    "removes the old object before it saves the new one",
    ({ remove, save }) => ({
      save: (key, data, options) => Effect.zipRight(remove(key), save(key, data, options))
    }),
    "a save interrupted after any number of chunks changes nothing and closes its source",
    /there is no such object/
  ],
  [
    "wraps the failures of a source",
    ({ save }) => ({
      save: (key, data, options) =>
        data instanceof Uint8Array ? save(key, data, options) : save(
          key,
          Stream.mapError(data, (cause) =>
            new StorageError.UnexpectedStorageError({ ...here, reason: "the source failed", cause })),
          options
        )
    }),
    "a failure of the source is returned unchanged, and nothing is saved",
    /the failure of a save whose source fails after 0 pieces/
  ],
  [
    "makes failures of a source's defects",
    ({ save }) => ({
      save: (key, data, options) =>
        Effect.catchAllDefect(
          save(key, data, options),
          (cause) => Effect.fail(new StorageError.UnexpectedStorageError({ ...here, reason: "the source died", cause }))
        )
    }),
    "a defect of the source stays a defect, and nothing is saved",
    /the defect of a save/
  ],
  [
    "keeps the caller's array",
    ({ save }) => {
      const kept = new Map<string, Uint8Array>()
      return {
        save: (key, data, options) =>
          Effect.tap(
            save(key, data, options),
            () => Effect.sync(() => data instanceof Uint8Array && kept.set(key, data))
          ),
        open: (key) => {
          const bytes = kept.get(key) ?? new Uint8Array(0)
          const info = { key, size: bytes.byteLength, lastModified: new Date(), etag: "1" }
          return StorageBackend.openBytes(bytes, info, {}, "Memory")
        }
      }
    },
    "changing an array after its save does not change the object",
    /load of "bytes": .* the first difference is at byte 0/
  ],
  [
    "has the size for an etag",
    withEtag((info) => String(info.size)),
    "the etag changes with the content, also within a millisecond and at the same size",
    /what had the etag 64 before it was given to save 1/
  ],
  [
    "has time and size for an etag",
    withEtag((info) => `${info.lastModified.getTime()}-${info.size}`),
    "the etag changes with the content, also within a millisecond and at the same size",
    /what had the etag/
  ],
  [
    "gives another etag each time",
    withEtag(() => String(Math.random())),
    "the etag does not change until the object is saved again",
    /head against save/
  ],
  [
    "calls every object modified in an hour",
    ({ head }) => ({
      head: (key) => Effect.map(head(key), (info) => ({ ...info, lastModified: new Date(Date.now() + 3_600_000) }))
    }),
    "save, head, open and entries return the same metadata",
    /head against save: milliseconds between/
  ],
  [
    "loads fewer bytes than there are",
    ({ load }) => ({ load: (key, options) => Effect.map(load(key, options), (bytes) => bytes.slice(0, 8 * MiB)) }),
    "bytes of every size are loaded as they were saved",
    /load of "sizes\/bytes": expected 8388609 bytes and got 8388608/
  ],
  [
    "loses a byte where two parts of a stream meet",
    ({ open }) => ({
      open: (key, options) =>
        Effect.map(open(key, options), (opened) => ({
          ...opened,
          stream: Stream.map(Stream.zipWithIndex(opened.stream), ([piece, index]) => {
            if (index > 0) piece.copyWithin(0, 1)
            return piece
          })
        }))
    }),
    "streams of every size and chunking are loaded as they were saved",
    /the first difference is at byte 104857[67]/
  ],
  [
    "cannot hold an object of no bytes",
    ({ save }) => ({
      save: (key, data, options) =>
        Effect.flatMap(bytesOf(data), (bytes) => save(key, bytes.byteLength === 0 ? new Uint8Array(1) : bytes, options))
    }),
    "an empty object can be read",
    /load: expected 0 bytes and got 1/
  ],
  [
    "does not clamp a range",
    ({ open }) => ({
      open: (key, options) =>
        Effect.flatMap(
          open(key, options),
          (opened) =>
            options.range?._tag === "Bounded" && options.range.endExclusive > opened.info.size
              ? Effect.fail(new StorageError.InvalidRange({ ...here, key, reason: "it ends past the object" }))
              : Effect.succeed(opened)
        )
    }),
    "a range is clamped to the end of the object",
    /it ends past the object/
  ],
  [
    "gives no bytes for a range past the end",
    ({ load }) => ({
      load: (key, options) =>
        Effect.catchTag(load(key, options), "InvalidRange", () => Effect.succeed(new Uint8Array(0)))
    }),
    "a range that starts at or past the end fails with InvalidRange",
    /load of .* expected the failure InvalidRange, but it succeeded/
  ],
  [
    "fails where a suffix is longer than the object",
    ({ open }) => ({
      open: (key, options) =>
        Effect.flatMap(
          open(key, options),
          (opened) =>
            options.range?._tag === "Last" && options.range.length > opened.info.size
              ? Effect.fail(new StorageError.InvalidRange({ ...here, key, reason: "the suffix is too long" }))
              : Effect.succeed(opened)
        )
    }),
    "a range is clamped to the end of the object",
    /the suffix is too long/
  ],
  [
    "sorts the ranges that it is asked for",
    ({ loadRanges }) => ({
      loadRanges: (key, ranges, options) =>
        loadRanges(key, [...ranges].sort((a, b) => ByteRange.toHttp(a) < ByteRange.toHttp(b) ? -1 : 1), options)
    }),
    "loadRanges returns overlapping, repeated and unordered ranges in the order given",
    /loadRanges of bytes=/
  ],
  [
    "reads each range of whatever version is there",
    ({ load }) => ({
      loadRanges: (key, ranges, options) =>
        Effect.forEach(ranges, (range) => Effect.zipLeft(load(key, { ...options, range }), Effect.yieldNow()))
    }),
    "reads of an object that is being overwritten return one version",
    /loadRanges: .* none of/
  ],
  [
    "reads each part of a stream from whatever version is there",
    ({ load, open }) => ({
      open: (key, options) =>
        Effect.map(open(key, options), (opened) => ({
          ...opened,
          stream: Stream.unfoldEffect(opened.range.start, (at) => {
            const end = Math.min(at + MiB, opened.range.endExclusive)
            return at < end
              ? Effect.map(load(key, { range: ByteRange.make(at, end) }), (bytes) => Option.some([bytes, end] as const))
              : Effect.succeedNone
          })
        }))
    }),
    "a stream whose object changes midway continues with the old version or fails",
    /what came of an object that was overwritten with as many bytes/
  ],
  [
    "reads a stream when it is opened and gives its own array away",
    ({ open, load }) => {
      const arrays = new Map<string, Uint8Array>()
      return {
        load: (key, options) =>
          Effect.map(load(key, options), (bytes) => {
            const array = arrays.get(key) ?? bytes
            arrays.set(key, array)
            return options.range === undefined ? array : bytes
          }),
        open
      }
    },
    "changing loaded bytes does not change the object",
    /load after what it gave was changed/
  ],
  [
    "lists in the order of JavaScript strings",
    withEntries((entries, options) =>
      Stream.unwrap(
        Effect.map(Stream.runCollect(entries(options)), (infos) =>
          Stream.fromIterable([...infos].sort((a, b) => a.key < b.key ? -1 : 1)))
      )
    ),
    "keys are listed in UTF-8 byte order",
    /entries of everything/
  ],
  [
    "lists folder by folder",
    withEntries((entries, options) =>
      Stream.unwrap(Effect.map(Stream.runCollect(entries(options)), (infos) => {
        const rank = (key: string) => key.replaceAll("/", "\0")
        return Stream.fromIterable([...infos].sort((a, b) => rank(a.key) < rank(b.key) ? -1 : 1))
      }))
    ),
    "keys are listed in UTF-8 byte order",
    /entries of everything/
  ],
  [
    "takes a prefix for a folder",
    withEntries((entries, { prefix = "", startAfter = "" }) =>
      entries({ prefix: prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`, startAfter })
    ),
    "a prefix is a plain string: a part of a name, a whole key, or a folder",
    /entries of the prefix/
  ],
  [
    "lists from startAfter on, with it",
    withEntries((entries, { prefix = "", startAfter = "" }) =>
      Stream.filter(entries({ prefix }), ({ key }) => ObjectKey.compare(key, startAfter) >= 0)
    ),
    "startAfter lists the keys after any string, within any prefix",
    /entries after/
  ],
  [
    "forgets the prefix where there is startAfter",
    withEntries((entries, { prefix = "", startAfter = "" }) =>
      entries(startAfter === "" ? { prefix } : { startAfter })
    ),
    "startAfter lists the keys after any string, within any prefix",
    /entries of the prefix "a" after "A"/
  ],
  [
    "lists one page",
    withEntries((entries, options) => Stream.take(entries(options), 1000)),
    "2,500 objects are listed across pages",
    /entries of everything/
  ],
  [
    "lists the last of a page again",
    withEntries((entries, options) =>
      Stream.flatMap(
        Stream.zipWithIndex(entries(options)),
        ([info, index]) => index % 1000 === 999 ? Stream.make(info, info) : Stream.make(info)
      )
    ),
    "2,500 objects are listed across pages",
    /entries of everything/
  ],
  [
    "shows folders that are empty",
    ({ listDirectory, save }) => {
      const folders = new Set<string>()
      return {
        save: (key, data, options) => {
          if (key.includes("/")) folders.add(key.slice(0, key.indexOf("/") + 1))
          return save(key, data, options)
        },
        listDirectory: (prefix) =>
          Effect.map(
            listDirectory(prefix),
            (directory) => prefix === "" ? { ...directory, prefixes: [...folders].sort() } : directory
          )
      }
    },
    "a folder disappears with its last object",
    /the root/
  ],
  [
    "lists a whole tree as a directory",
    ({ entries }) => ({
      listDirectory: (prefix) =>
        Effect.map(Stream.runCollect(entries({ prefix })), (objects) => ({ objects: [...objects], prefixes: [] }))
    }),
    "listDirectory returns the objects of a directory and each folder once",
    /the root/
  ],
  [
    "fails to remove what is not there",
    ({ head, remove }) => ({
      remove: (key) =>
        Effect.zipRight(
          Effect.catchTag(head(key), "ObjectNotFound", (cause) =>
            new StorageError.UnexpectedStorageError({ ...here, key, reason: "there is nothing to remove", cause })),
          remove(key)
        )
    }),
    "removing a missing object succeeds",
    /there is nothing to remove/
  ],
  [
    "removes all that starts with a key",
    ({ keys, remove }) => ({
      remove: (prefix) =>
        Effect.catchTag(Stream.runForEach(keys({ prefix }), remove), "UnsupportedOperation", Effect.die)
    }),
    "a removed object is gone and its neighbours stay",
    /the listing/
  ],
  [
    "forgets the last key of a batch",
    ({ remove }) => ({ removeAll: (keys) => Effect.as(Effect.forEach(keys.slice(0, -1), remove), []) }),
    "removeAll accepts an array, a set, a generator or a stream of keys",
    /the listing/
  ],
  [
    "copies by name: a copy changes with what it was made of",
    ({ copy, open, save }) => {
      const sources = new Map<string, string>()
      return {
        copy: (from, to, options) =>
          Effect.tap(copy(from, to, options), () => Effect.sync(() => sources.set(to, from))),
        save: (key, data, options) =>
          Effect.tap(save(key, data, options), () => Effect.sync(() => sources.delete(key))),
        open: (key, options) => open(sources.get(key) ?? key, options)
      }
    },
    "a copy is independent of its source",
    /load of "copy"/
  ],
  [
    "moves and leaves the source",
    ({ copy }) => ({ move: copy }),
    "a move of any size is whole, in any folder",
    /load of "from\/object", which is not there: expected the failure ObjectNotFound, but it succeeded/
  ],
  [
    "removes the target before it finds that there is no source",
    ({ move, remove }) => ({ move: (from, to, options) => Effect.zipRight(remove(to), move(from, to, options)) }),
    "a move of a missing object fails with ObjectNotFound and leaves the target unchanged",
    /there is no such object/
  ],
  [
    "lets a fiber run on after a save",
    ({ save }) => ({
      save: (key, data, options) =>
        Effect.zipRight(Effect.forkDaemon(Effect.sleep("5 seconds")), save(key, data, options))
    }),
    "a removed object can be saved again",
    /how many fibers still run when the storage is closed/
  ],
  [
    "keeps an index beside its objects and lets the two part",
    ({ head, remove, save }) => {
      const index = new Set<string>()
      return {
        save: (key, data, options) => Effect.tap(save(key, data, options), () => Effect.sync(() => index.add(key))),
        remove: (key) =>
          remove(key).pipe(
            Effect.zipRight(Effect.yieldNow()),
            Effect.zipRight(Effect.sync(() => void index.delete(key)))
          ),
        head: (key) => index.has(key) ? head(key) : Effect.fail(new StorageError.ObjectNotFound({ ...here, key }))
      }
    },
    "a concurrent save and removal leave the whole object or none",
    /load of "folder\/contested", which is not there: expected the failure ObjectNotFound, but it succeeded/
  ],
  [
    "gives nothing to who asks for an object that another is loading",
    ({ load }) => {
      const loading = new Set<string>()
      return {
        load: (key, options) => {
          if (loading.has(key)) return Effect.succeed(new Uint8Array(0))
          loading.add(key)
          return load(key, options).pipe(
            Effect.zipLeft(Effect.yieldNow()),
            Effect.ensuring(Effect.sync(() => loading.delete(key)))
          )
        }
      }
    },
    "sixteen concurrent loads of one object all return it whole",
    /the object: expected 1048577 bytes and got 0/
  ],
  [
    "shows an object of its own making",
    withEntries((entries, options) =>
      Stream.concat(Stream.make({ key: ".keep", size: 0, lastModified: new Date(), etag: "keep" }), entries(options))
    ),
    "an empty store, and a prefix without objects, list nothing",
    /entries of an empty store/
  ],
  [
    "loses an object that is copied twice",
    ({ copy, remove }) => {
      const copied = new Set<string>()
      return {
        copy: (from, to, options) =>
          Effect.tap(copy(from, to, options), () => {
            if (copied.has(from)) return remove(from)
            copied.add(from)
            return Effect.void
          })
      }
    },
    "a random sequence of operations has the same results as on a map",
    /Property failed[^]*seed: [^]*Counterexample: \[\[[^]*Shrunk/
  ]
]

type ServiceChange = (service: Storage.Service) => Partial<Storage.Service>

/** What `Storage.make` sees to for every backend, and a service that was not made by it may get wrong. */
const brokenServices: ReadonlyArray<readonly [what: string, change: ServiceChange, rule: string, says: RegExp]> = [
  [
    "does not look at the keys that it removes",
    ({ backend }) => ({ remove: backend.remove }),
    "an invalid key fails with InvalidKey on every operation, before any I/O",
    /remove, the key being empty \(""\): expected the failure InvalidKey, but it succeeded/
  ],
  [
    "asks the source of a save for bytes before it looks at the key",
    ({ save }) => ({
      save: (key, data, options) => Effect.flatMap(bytesOf(data), (bytes) => save<never, never>(key, bytes, options))
    }),
    "an invalid key fails with InvalidKey on every operation, before any I/O",
    /how often a source was asked/
  ],
  [
    "loads the whole object where a range is nonsense",
    ({ load }) => ({ load: (key, options) => Effect.catchTag(load(key, options), "InvalidRange", () => load(key)) }),
    "a malformed range fails with InvalidRange",
    /expected the failure InvalidRange, but it succeeded/
  ],
  [
    "lists what starts with half a character",
    ({ backend, entries }) => ({
      entries: (options = {}) => options.prefix === "\ud83d" ? backend.entries(options) : entries(options)
    }),
    "a prefix that no valid key has lists nothing",
    /entries of the prefix "\\ud83d"/
  ],
  [
    "reads a stream when it is made",
    ({ load }) => ({ stream: (key, options) => Stream.fromEffect(Effect.runSync(Effect.exit(load(key, options)))) }),
    "a stream reads the object when it is run, not when it is created",
    /there is no such object/
  ],
  [
    "lists when the listing is made",
    ({ list }) => ({ list: (prefix) => Effect.runSync(Effect.exit(list(prefix))) }),
    "a listing reads the store when it is run, not when it is created",
    /expected \[\] to deeply equal \[ 'a', 'b' \]/
  ],
  [
    "wraps the failures of a stream of keys",
    ({ removeAll }) => ({
      removeAll: (keys) =>
        Effect.catchAll(
          removeAll(keys),
          (cause) =>
            Effect.fail(new StorageError.UnexpectedStorageError({ ...here, reason: "the source failed", cause }))
        )
    }),
    "a failure of the stream of keys is returned unchanged",
    /to be SourceFailure|to be Error/
  ]
]

describe("StorageContract", () => {
  it("has no two cases of one name", () => {
    const names = StorageContract.cases.map((rule) => rule.name)
    expect(names).toEqual([...new Set(names)])
  })

  const all = [
    ...broken.map(([what, change, rule, says]) => ({ what, layer: changed(change), rule, says })),
    ...brokenServices.map(([what, change, rule, says]) => ({
      what,
      layer: Layer.effect(
        Storage.Storage,
        Effect.map(MemoryStorage.make(), (service) => ({ ...service, ...change(service) }))
      ),
      rule,
      says
    }))
  ]
  for (const { layer, rule, says, what } of all) {
    it.live(`notices a store that ${what}`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(StorageContract.run(theCase(rule), { layer }))
        if (Exit.isSuccess(exit)) assert.fail(`"${rule}" passed`)
        else expect(Cause.pretty(exit.cause)).toMatch(says)
      }), 60_000)
  }

  it.live("looks for what a listing does not show with the effect that it is given", () =>
    Effect.gen(function*() {
      let open = 0
      const layer = changed((memory) => ({
        // Closed by whoever reads to the end, and by nobody else.
        open: (key, options) =>
          Effect.map(Effect.tap(memory.open(key, options), () => Effect.sync(() => void open++)), (opened) => ({
            ...opened,
            stream: Stream.concat(opened.stream, Stream.drain(Stream.sync(() => void open--)))
          }))
      }))
      const leftovers = Effect.sync(() => open > 0 ? [`${open} open objects`] : [])
      const rule = theCase("a stream that is abandoned after one chunk releases the object")
      const exit = yield* Effect.exit(StorageContract.run(rule, { layer, leftovers }))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(/what is left over/)
      yield* StorageContract.run(rule, { layer })
    }))

  // As a server does that has the whole of a request when the connection goes.
  const late = <A, Err>(effect: Effect.Effect<A, Err>, millis: number) =>
    Effect.flatMap(Effect.forkDaemon(Effect.delay(effect, millis)), Fiber.join)
  for (
    const [rule, everySecondSave] of [
      ["a move interrupted at any moment loses nothing", 15],
      // Each save of a key comes before the one that was interrupted earlier.
      ["a save interrupted at any moment leaves the old or the new object, whole", 1]
    ] as const
  ) {
    it.live(`grants a store that what it has begun is done after an interruption: ${rule}`, () => {
      let saves = 0
      return StorageContract.run(theCase(rule), {
        layer: changed(({ open, remove, save }) => ({
          open: (key, options) => Effect.delay(open(key, options), "3 millis"),
          remove: (key) => late(remove(key), 15),
          save: (key, data, options) =>
            Effect.flatMap(
              bytesOf(data),
              (bytes) => late(save<never, never>(key, bytes, options), saves++ % 2 === 0 ? 15 : everySecondSave)
            )
        }))
      })
    }, 60_000)
  }

  it("refuses to skip a case that there is not", () => {
    expect(() =>
      StorageContract.suite("nothing", { layer: MemoryStorage.layer(), skip: { "no such case": "a reason" } })
    )
      .toThrow("no such case")
  })
})

const theCase = (name: string): StorageContract.Case =>
  StorageContract.cases.find((rule) => rule.name === name) ?? assert.fail(`there is no case "${name}"`)

// What a store says that it cannot do has to be refused: these two can do the least, and pass.

StorageContract.suite("a store that can only save and load, and no object under another", {
  layer: changed(({ keys, save }) => ({
    capabilities: {
      write: true,
      list: false,
      createOnly: false,
      compareAndSwap: false,
      objectsWithinObjects: false,
      presign: false
    },
    save: (key, data, options) =>
      Effect.flatMap(Stream.runCollect(keys({})), (all) => {
        const other = [...all].find((other) => other.startsWith(`${key}/`) || key.startsWith(`${other}/`))
        const reason = `${key} and ${other} cannot both be`
        return other === undefined
          ? save(key, data, options)
          : Effect.fail(new StorageError.UnsupportedOperation({ backend: "Memory", operation: "save", key, reason }))
      })
  }))
})

StorageContract.suite("a store that can only read and list", {
  layer: changed(() => ({ capabilities: { ...StorageBackend.readOnly, list: true } }))
})
