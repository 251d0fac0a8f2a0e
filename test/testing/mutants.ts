/**
 * Stores with one defect each, and the case of the contract suite that must detect it.
 */
import { Effect, Layer, Option, Scope, Sink, Stream } from "effect"
import { ByteRange, MemoryStorage, ObjectKey, Storage, StorageBackend, StorageError } from "surfing-weights"

type Change = (memory: StorageBackend.StorageBackend) => Partial<StorageBackend.StorageBackend>

/** A store in memory whose operations are derived from its primitives, and then changed. */
export const changed = (change: Change): Effect.Effect<Storage.Service> =>
  Effect.map(MemoryStorage.make(), ({ backend }) => {
    const { capabilities, entries, name, open, remove, save } = backend
    const changes = change(backend)
    return Storage.make(
      StorageBackend.make({ name, capabilities, entries, open, remove, save, ...changes }, changes)
    )
  })

export const layerOf = (storage: Effect.Effect<Storage.Service>): Layer.Layer<Storage.Storage> =>
  Layer.effect(Storage.Storage, storage)

type ServiceChange = (service: Storage.Service) => Partial<Storage.Service>

/** A service whose operations were changed after `Storage.make`. */
const changedService = (change: ServiceChange): Effect.Effect<Storage.Service> =>
  Effect.map(MemoryStorage.make(), (service) => ({ ...service, ...change(service) }))

export interface Mutant {
  /** What is wrong, after "a store that". */
  readonly what: string
  readonly storage: Effect.Effect<Storage.Service>
  /** The case that must fail. */
  readonly rule: string
  /** What its message must say. */
  readonly says: RegExp
}

type Row<C> = readonly [what: string, change: C, rule: string, says: RegExp]

const MiB = 1024 * 1024

const concat = (arrays: Iterable<Uint8Array>): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.concat([...arrays]))

export const bytesOf = (data: StorageBackend.SaveData): Effect.Effect<Uint8Array> =>
  data instanceof Uint8Array ? Effect.succeed(data) : Effect.map(Stream.runCollect(data), concat)

const mapOpened = (
  open: StorageBackend.StorageBackend["open"],
  change: (opened: StorageBackend.OpenedObject) => StorageBackend.OpenedObject
): Pick<StorageBackend.StorageBackend, "open"> => ({
  open: (key, options) => Effect.map(open(key, options), change)
})

const mapInfo = (
  { entries, open, save }: StorageBackend.StorageBackend,
  change: (info: StorageBackend.ObjectInfo) => StorageBackend.ObjectInfo
): Partial<StorageBackend.StorageBackend> => ({
  ...mapOpened(open, (opened) => ({ ...opened, info: change(opened.info) })),
  save: (key, data, options) => Effect.map(save(key, data, options), change),
  entries: (options) => Stream.map(entries(options), change)
})

// Keys

/** Keeps each object under another spelling of its key, and lists it under the key that it was saved with last. */
const respelled = (spell: (key: string) => string): Change => (memory) => {
  const shown = new Map<string, string>()
  return {
    open: (key, options) =>
      Effect.map(memory.open(spell(key), options), (opened) => ({ ...opened, info: { ...opened.info, key } })),
    save: (key, data, options) => {
      shown.set(spell(key), key)
      return Effect.map(memory.save(spell(key), data, options), (info) => ({ ...info, key }))
    },
    remove: (key, options) => memory.remove(spell(key), options),
    entries: ({ prefix = "", startAfter = "" }) =>
      memory.entries({}).pipe(
        Stream.map((info) => ({ ...info, key: shown.get(info.key) ?? info.key })),
        Stream.filter(({ key }) => key.startsWith(prefix) && ObjectKey.compare(key, startAfter) > 0)
      )
  }
}

const keys: ReadonlyArray<Row<Change>> = [
  [
    "decodes percent signs in keys",
    respelled((key) => key.replace(/%([0-7][0-9a-f])/gi, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)))),
    "keys are kept byte for byte and distinct: percent signs",
    /the listing/
  ],
  [
    "reads a plus as a space",
    respelled((key) => key.replaceAll("+", " ")),
    "keys are kept byte for byte and distinct: spaces and punctuation",
    /the listing/
  ],
  [
    "reads a backslash as a slash",
    respelled((key) => key.replaceAll("\\", "/")),
    "keys are kept byte for byte and distinct: spaces and punctuation",
    /exists of "back\/slash", never saved/
  ],
  [
    "ignores case",
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
    "truncates long segments",
    respelled((key) => key.split("/").map((segment) => segment.slice(0, 255)).join("/")),
    "keys are kept byte for byte and distinct: long segments",
    /the listing/
  ],
  [
    "ignores the last character of the longest keys",
    respelled((key) => key.length === 1024 ? key.slice(0, 1023) : key),
    "keys are kept byte for byte and distinct: long segments",
    /the listing/
  ],
  [
    "hides names that it uses itself",
    ({ entries }) => ({
      entries: (options) => Stream.filter(entries(options), ({ key }) => !key.startsWith(".surfing-weights"))
    }),
    "keys are kept byte for byte and distinct: hidden and internal file names",
    /the listing/
  ],
  [
    "finds an object where there is a folder",
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
    /head of "folder", which should not exist: expected the failure ObjectNotFound, but it succeeded/
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
              ? Effect.fail(new StorageError.UnsupportedOperation({ reason: "something is in the way" }))
              : save(key, data, options)
        )
    }),
    "an object beside a folder of the same name is kept, or refused with both keys in the message",
    /the message of save of bytes of upper_one\/lower_one beside upper_one, without upper_one\/lower_one/
  ],
  [
    "loses an object when another is saved under it",
    ({ remove, save }) => ({
      save: (key, data, options) => Effect.zipRight(remove(key.split("/")[0] ?? key, {}), save(key, data, options))
    }),
    "an object beside a folder of the same name is kept, or refused with both keys in the message",
    /there is no such object/
  ]
]

// Saving

/** Collects a stream in an object that others can see, and saves it when it is complete. */
const collectingAt = (placeOf: (key: string) => string): Change => ({ remove, save }) => ({
  save: (key, data, options) => {
    if (data instanceof Uint8Array) return save(key, data, options)
    const place = placeOf(key)
    const show = (bytes: Uint8Array) => Effect.as(save(place, bytes, {}), bytes)
    return show(new Uint8Array(0)).pipe(
      Effect.flatMap((none) => Stream.runFoldEffect(data, none, (before, chunk) => show(concat([before, chunk])))),
      Effect.tap(() => remove(place, {})),
      Effect.flatMap((whole) => save(key, whole, options)),
      Effect.catchTag("PreconditionFailed", () => Effect.die("no precondition was given"))
    )
  }
})

const saving: ReadonlyArray<Row<Change>> = [
  [
    "shows a stream before its save ends",
    collectingAt((key) => key),
    "an object is not visible before its save ends",
    /load of "new\/folder\/object", which should not exist: expected the failure ObjectNotFound, but it succeeded/
  ],
  [
    "leaves behind what a failed save has collected",
    collectingAt((key) => `${key}.part`),
    "a failure of the source is returned unchanged, and nothing is saved",
    /\.part/
  ],
  [
    "leaves behind what an interrupted save has collected",
    collectingAt((key) => `${key}.part`),
    "a save interrupted after any number of chunks changes nothing and closes its source",
    /\.part/
  ],
  [
    "collects all saves of a key in one place",
    ({ save }) => {
      const collected = new Map<string, Array<Uint8Array>>()
      return {
        save: (key, data, options) => {
          if (data instanceof Uint8Array) return save(key, data, options)
          collected.set(key, [])
          return Effect.flatMap(
            Stream.runForEach(data, (chunk) => Effect.sync(() => collected.get(key)?.push(chunk))),
            () => save(key, concat(collected.get(key) ?? []), options)
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
      save: (key, data, options) =>
        Effect.catchTag(remove(key, {}), "PreconditionFailed", Effect.die).pipe(
          Effect.zipRight(save(key, data, options))
        )
    }),
    "a save interrupted after any number of chunks changes nothing and closes its source",
    /there is no such object/
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
          return StorageBackend.openBytes(bytes, info, {})
        }
      }
    },
    "changing an array after its save does not change the object",
    /load of "bytes": .* the first difference is at byte 0/
  ],
  [
    "cannot hold an empty object",
    ({ save }) => ({
      save: (key, data, options) =>
        Effect.flatMap(bytesOf(data), (bytes) => save(key, bytes.byteLength === 0 ? new Uint8Array(1) : bytes, options))
    }),
    "an empty object can be read",
    /load: expected 0 bytes and got 1/
  ],
  [
    "has the size as etag",
    (memory) => mapInfo(memory, (info) => ({ ...info, etag: String(info.size) })),
    "the etag changes with the content, also within a millisecond and at the same size",
    /what had the etag 64 before save 1/
  ],
  [
    "has time and size as etag",
    (memory) => mapInfo(memory, (info) => ({ ...info, etag: `${info.lastModified.getTime()}-${info.size}` })),
    "the etag changes with the content, also within a millisecond and at the same size",
    /what had the etag/
  ],
  [
    "returns another etag each time",
    (memory) => mapInfo(memory, (info) => ({ ...info, etag: String(Math.random()) })),
    "the etag does not change until the object is saved again",
    /head compared with save/
  ],
  [
    "returns a time in the future",
    ({ head }) => ({
      head: (key) => Effect.map(head(key), (info) => ({ ...info, lastModified: new Date(Date.now() + 3_600_000) }))
    }),
    "save, head, open and entries return the same metadata",
    /head compared with save: milliseconds between/
  ]
]

// Sources and sinks

const sources: ReadonlyArray<Row<Change>> = [
  [
    "saves what it has received where the source fails",
    ({ save }) => ({
      save: (key, data, options) =>
        save(key, data instanceof Uint8Array ? data : Stream.catchAllCause(data, () => Stream.empty), options)
    }),
    "a failure of the source is returned unchanged, and nothing is saved",
    /load of "folder\/old"/
  ],
  [
    "saves what it has received where the source dies",
    ({ save }) => ({
      save: (key, data, options) =>
        save(key, data instanceof Uint8Array ? data : Stream.catchAllCause(data, () => Stream.empty), options)
    }),
    "a defect of the source stays a defect, and nothing is saved",
    /load of "folder\/old"/
  ],
  [
    "saves what it has received where the source is interrupted",
    ({ save }) => ({
      save: (key, data, options) =>
        save(key, data instanceof Uint8Array ? data : Stream.catchAllCause(data, () => Stream.empty), options)
    }),
    "a source that is interrupted interrupts the save, and nothing is saved",
    /load of "folder\/old"/
  ],
  [
    "runs a source once to measure it",
    ({ save }) => ({
      save: (key, data, options) =>
        data instanceof Uint8Array
          ? save(key, data, options)
          : Effect.zipRight(Stream.runDrain(data), save(key, data, options))
    }),
    "a source has the caller's context and is run once",
    /how often the source was run/
  ],
  [
    "does not close its sources",
    ({ save }) => ({
      save: (key, data, options) =>
        data instanceof Uint8Array ?
          save(key, data, options) :
          Effect.flatMap(Scope.make(), (scope) =>
            save(key, Stream.fromPull(Effect.provideService(Stream.toPull(data), Scope.Scope, scope)), options))
    }),
    "a save interrupted after any number of chunks changes nothing and closes its source",
    /the number of open sources after an interrupted save/
  ],
  [
    "lets a fiber run on after a save",
    ({ save }) => ({
      save: (key, data, options) =>
        Effect.zipRight(Effect.forkDaemon(Effect.sleep("5 seconds")), save(key, data, options))
    }),
    "a removed object can be saved again",
    /fibers still running after the storage was closed/
  ]
]

const wrapped = (cause: unknown) => new StorageError.UnexpectedStorageError({ reason: "the source failed", cause })

const sourcesOfServices: ReadonlyArray<Row<ServiceChange>> = [
  [
    "wraps the failures of a source",
    ({ save }) => ({
      save: (key, data, options) =>
        save(key, data instanceof Uint8Array ? data : Stream.mapError(data, wrapped), options)
    }),
    "a failure of the source is returned unchanged, and nothing is saved",
    /the failure of a save whose source fails after 0 chunks/
  ],
  [
    "fills in its own name in the failure of a source",
    ({ backend, save }) => ({
      save: (key, data, options) =>
        Effect.mapError(
          save(key, data, options),
          (error) =>
            error instanceof StorageError.StorageUnavailable
              ? new StorageError.StorageUnavailable({ ...error, backend: backend.name })
              : error
        )
    }),
    "a failure of the source is returned unchanged, and nothing is saved",
    /the failure of a save whose source fails after 0 chunks/
  ],
  [
    "reports success where the source failed",
    ({ head, save }) => ({
      save: (key, data, options) =>
        Effect.catchAllCause(
          save(key, data, options),
          (cause) => Effect.orElse(head(key), () => Effect.failCause(cause))
        )
    }),
    "a failure of the source is returned unchanged, and nothing is saved",
    /a save whose source failed after 0 chunks succeeded/
  ],
  [
    "turns the defect of a source into a failure",
    ({ save }) => ({
      save: (key, data, options) => Effect.catchAllDefect(save(key, data, options), (cause) => wrapped(cause))
    }),
    "a defect of the source stays a defect, and nothing is saved",
    /the defect of a save/
  ],
  [
    "turns the interruption of a source into a failure",
    ({ save }) => ({
      save: (key, data, options) =>
        Effect.catchAllCause(save(key, data, options), (cause) => Effect.fail(wrapped(cause)))
    }),
    "a source that is interrupted interrupts the save, and nothing is saved",
    /is an interruption/
  ],
  [
    "saves through a sink what came before its stream failed",
    ({ save, sink }) => ({
      sink: (key, options) =>
        Sink.unwrapScoped(Effect.gen(function*() {
          const received: Array<Uint8Array> = []
          yield* Effect.addFinalizer(() => Effect.ignore(save(key, concat(received), options)))
          return Sink.mapInput(sink(key, options), (bytes: Uint8Array) => {
            received.push(bytes)
            return bytes
          })
        }))
    }),
    "a stream that does not end in success saves nothing through a sink",
    /load of "folder\/old"/
  ],
  [
    "ignores the options of a sink",
    ({ sink }) => ({ sink: (key) => sink(key) }),
    "a sink applies the preconditions of its save",
    /a second creation: expected the failure ObjectAlreadyExists, but it succeeded/
  ],
  [
    "saves nothing through a sink",
    ({ save }) => ({ sink: (key) => Sink.zipRight(Sink.drain, Sink.fromEffect(save(key, new Uint8Array(0)))) }),
    "a sink saves the stream that is run into it",
    /what the sink returns for a few bytes/
  ]
]

// Preconditions

/** Checks preconditions first, and saves later. */
const checksTooEarly: Change = ({ head, save }) => ({
  save: (key, data, options) =>
    Effect.gen(function*() {
      const existing = Option.getOrUndefined(yield* Effect.option(head(key)))
      yield* StorageBackend.checkSave(existing, options)
      yield* Effect.yieldNow()
      return yield* save(key, data, {})
    })
})

const preconditions: ReadonlyArray<Row<Change>> = [
  [
    "ignores ifNoneMatch on a save",
    ({ save }) => ({ save: (key, data) => save(key, data, {}) }),
    "ifNoneMatch on an existing object fails with ObjectAlreadyExists and changes nothing",
    /expected the failure ObjectAlreadyExists, but it succeeded/
  ],
  [
    "checks ifNoneMatch before it saves",
    checksTooEarly,
    "of eight concurrent creations of one object, exactly one succeeds",
    /the failures of the other creations/
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
    "checks ifMatch before it saves",
    checksTooEarly,
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
    "ignores ifMatch on a removal",
    ({ remove }) => ({ remove: (key) => remove(key, {}) }),
    "ifMatch on a removal fails with PreconditionFailed for any other etag, also of a missing object",
    /expected the failure PreconditionFailed, but it succeeded/
  ],
  [
    "removes a missing object under any ifMatch",
    ({ remove }) => ({
      remove: (key, options) =>
        Effect.catchTag(remove(key, options), "PreconditionFailed", (error) =>
          // Objects that exist are protected.
          options.ifMatch === "\"quoted\"" ? Effect.void : Effect.fail(error))
    }),
    "ifMatch on a removal fails with PreconditionFailed for any other etag, also of a missing object",
    /ifMatch "\\"quoted\\"": expected the failure PreconditionFailed, but it succeeded/
  ],
  [
    "checks ifMatch before it removes",
    ({ head, remove }) => ({
      remove: (key, { ifMatch }) =>
        Effect.gen(function*() {
          const existing = Option.getOrUndefined(yield* Effect.option(head(key)))
          if (ifMatch !== undefined && existing?.etag !== ifMatch) return yield* new StorageError.PreconditionFailed()
          yield* Effect.yieldNow()
          yield* remove(key, {})
        })
    }),
    "a removal with ifMatch never removes a newer version",
    /there is no such object/
  ]
]

// Attributes

const withoutAttributes = (info: StorageBackend.ObjectInfo): StorageBackend.ObjectInfo => ({
  ...info,
  attributes: undefined
})

const attributes: ReadonlyArray<Row<Change>> = [
  [
    "ignores attributes",
    ({ save }) => ({ save: (key, data, { attributes: _, ...options }) => save(key, data, options) }),
    "attributes are returned by save, head and open, however the object was saved",
    /save of bytes: attributes\.cacheControl/
  ],
  [
    "forgets the attributes of streams",
    ({ save }) => ({
      save: (key, data, { attributes, ...options }) =>
        save(key, data, data instanceof Uint8Array ? { ...options, attributes } : options)
    }),
    "attributes are returned by save, head and open, however the object was saved",
    /save of a stream: attributes\.cacheControl/
  ],
  [
    "does not return attributes from save",
    ({ save }) => ({ save: (key, data, options) => Effect.map(save(key, data, options), withoutAttributes) }),
    "attributes are returned by save, head and open, however the object was saved",
    /save of bytes: attributes\.cacheControl/
  ],
  [
    "does not return attributes from open",
    ({ head, open }) => ({
      head,
      ...mapOpened(open, (opened) => ({ ...opened, info: withoutAttributes(opened.info) }))
    }),
    "attributes are returned by save, head and open, however the object was saved",
    /open after a save of bytes: attributes\.cacheControl/
  ],
  [
    "does not keep the content language",
    (memory) =>
      mapInfo(memory, (info) => ({ ...info, attributes: { ...info.attributes, contentLanguage: undefined } })),
    "each attribute can be set alone",
    /save with contentLanguage: attributes\.contentLanguage/
  ],
  [
    "trims the values of metadata",
    (memory) =>
      mapInfo(memory, (info) => ({
        ...info,
        attributes: {
          ...info.attributes,
          metadata: Object.fromEntries(
            Object.entries(info.attributes?.metadata ?? {}).map(([name, value]) => [name, value.trim()])
          )
        }
      })),
    "metadata has any characters, up to 2 KiB",
    /save of odd values: attributes\.metadata/
  ],
  [
    "loses metadata named __proto__",
    (memory) =>
      mapInfo(memory, (info) => {
        const metadata: Record<string, string> = {}
        for (const [name, value] of Object.entries(info.attributes?.metadata ?? {})) metadata[name] = value
        return { ...info, attributes: { ...info.attributes, metadata } }
      }),
    "metadata has any characters, up to 2 KiB",
    /save of odd names: attributes\.metadata/
  ],
  [
    "forgets attributes on a copy",
    ({ copy }) => ({
      copy: (from, to, options) => copy(from, to, { ...options, attributes: options.attributes ?? {} })
    }),
    "copies and moves keep or replace attributes",
    /copy: attributes\.cacheControl/
  ],
  [
    "ignores the attributes of a copy",
    ({ copy }) => ({ copy: (from, to, { ifNoneMatch }) => copy(from, to, { ifNoneMatch }) }),
    "copies and moves keep or replace attributes",
    /copy with attributes: attributes\./
  ],
  [
    "adds the attributes of a copy to those of its source",
    ({ copy, head }) => ({
      copy: (from, to, options) =>
        Effect.flatMap(
          head(from),
          (source) => copy(from, to, { ...options, attributes: { ...source.attributes, ...options.attributes } })
        )
    }),
    "copies and moves keep or replace attributes",
    /copy with attributes: attributes\./
  ],
  [
    "keeps attributes by key, also when an object is overwritten",
    ({ head, save }) => ({
      save: (key, data, options) =>
        Effect.flatMap(Effect.option(head(key)), (before) =>
          save(key, data, {
            ...options,
            attributes: options.attributes ?? Option.getOrUndefined(before)?.attributes
          }))
    }),
    "attributes are gone with the version that they were saved with",
    /head after an overwriting save: attributes/
  ],
  [
    "keeps attributes by key, also when an object is removed",
    ({ open, save }) => {
      const kept = new Map<string, StorageBackend.Attributes>()
      return {
        save: (key, data, options) => {
          if (options.attributes !== undefined) kept.set(key, options.attributes)
          return save(key, data, options)
        },
        open: (key, options) =>
          Effect.map(open(key, options), (opened) => ({
            ...opened,
            info: { ...opened.info, attributes: kept.get(key) }
          }))
      }
    },
    "attributes are gone with the version that they were saved with",
    /head after .*: attributes/
  ],
  [
    "changes attributes before a save ends",
    ({ open, save }) => {
      const kept = new Map<string, StorageBackend.Attributes | undefined>()
      return {
        save: (key, data, options) => {
          kept.set(key, options.attributes)
          return save(key, data, options)
        },
        open: (key, options) =>
          Effect.map(open(key, options), (opened) => ({
            ...opened,
            info: { ...opened.info, attributes: kept.get(key) }
          }))
      }
    },
    "a failed save leaves the old attributes",
    /head after saves that failed: attributes/
  ],
  [
    "saves attributes after the object",
    ({ open, save }) => {
      const kept = new Map<string, StorageBackend.Attributes | undefined>()
      return {
        save: (key, data, options) =>
          save(key, data, {}).pipe(
            Effect.zipLeft(Effect.yieldNow()),
            Effect.tap(() => Effect.sync(() => kept.set(key, options.attributes)))
          ),
        open: (key, options) =>
          Effect.map(open(key, options), (opened) => ({
            ...opened,
            info: { ...opened.info, attributes: kept.get(key) }
          }))
      }
    },
    "objects and attributes of concurrent saves are never mixed",
    /open during saves: attributes/
  ],
  [
    "lists attributes of another object",
    ({ entries }) => ({
      entries: (options) =>
        Stream.map(entries(options), (info) => ({ ...info, attributes: { metadata: { index: "0" } } }))
    }),
    "attributes are kept under every kind of key",
    /metadata in entries of/
  ]
]

// Failures

const failures: ReadonlyArray<Row<Change>> = [
  [
    "names the source of a copy where the target exists",
    ({ copy }) => ({
      copy: (from, to, options) =>
        Effect.catchTag(
          copy(from, to, options),
          "ObjectAlreadyExists",
          () => Effect.fail(new StorageError.ObjectAlreadyExists())
        )
    }),
    "failures name the operation, the stack of wrappers and the key: preconditions and sizes of writes",
    /ObjectAlreadyExists of copy: the key of the failure/
  ]
]

const failuresOfServices: ReadonlyArray<Row<ServiceChange>> = [
  [
    "does not complete the failures of streams",
    ({ backend }) => ({
      stream: (key, options = {}) => Stream.unwrapScoped(Effect.map(backend.open(key, options), ({ stream }) => stream))
    }),
    "failures name the operation, the stack of wrappers and the key: missing objects",
    /ObjectNotFound of stream: the operation of the failure/
  ],
  [
    "names the operation that it is derived from",
    ({ load }) => ({
      loadRanges: (key, ranges, options) => Effect.forEach(ranges, (range) => load(key, { ...options, range }))
    }),
    "failures name the operation, the stack of wrappers and the key: missing objects",
    /ObjectNotFound of loadRanges: the operation of the failure/
  ],
  [
    "names the storage that it wraps",
    ({ backend, head }) => ({
      ...Storage.make(StorageBackend.intercept(backend, { name: `Wrapped(${backend.name})` })),
      head
    }),
    "failures name the operation, the stack of wrappers and the key: missing objects",
    /ObjectNotFound of head: the backend of the failure/
  ],
  [
    "names head where exists fails",
    ({ head }) => ({
      exists: (key) => head(key).pipe(Effect.as(true), Effect.catchTag("ObjectNotFound", () => Effect.succeed(false)))
    }),
    "failures name the operation, the stack of wrappers and the key: invalid keys",
    /InvalidKey of exists: the operation of the failure/
  ],
  [
    "names no operation in the summary of removeAll",
    ({ removeAll }) => ({
      removeAll: (keys) =>
        Effect.map(removeAll(keys), ({ failed, removed }) => ({
          removed,
          failed: failed.map((error) => new StorageError.InvalidKey({ key: error.key ?? "", reason: error.message }))
        }))
    }),
    "failures name the operation, the stack of wrappers and the key: invalid keys",
    /a failure in the summary of removeAll: the operation of the failure/
  ]
]

// Loading

/** Reads into one array, which is written again where `isFree` allows it. */
export const reusing = (isFree: (isFree: () => boolean) => boolean): Change => ({ open }) =>
  mapOpened(open, (opened) => ({
    ...opened,
    reuse: (isReadersFree) =>
      Stream.suspend(() => {
        let array = new Uint8Array(0)
        return Stream.map(opened.stream, (chunk) => {
          if (array.byteLength < chunk.byteLength || !isFree(isReadersFree)) array = new Uint8Array(chunk.byteLength)
          array.set(chunk)
          return array.subarray(0, chunk.byteLength)
        })
      })
  }))

const loading: ReadonlyArray<Row<Change>> = [
  [
    "loads too few bytes",
    ({ load }) => ({ load: (key, options) => Effect.map(load(key, options), (bytes) => bytes.slice(0, 8 * MiB)) }),
    "bytes of every size are loaded as they were saved",
    /load of "sizes\/bytes": expected 8388609 bytes and got 8388608/
  ],
  [
    "loses a byte between two parts of a stream",
    ({ open }) =>
      mapOpened(open, (opened) => ({
        ...opened,
        stream: Stream.map(Stream.zipWithIndex(opened.stream), ([chunk, index]) => {
          if (index > 0) chunk.copyWithin(0, 1)
          return chunk
        })
      })),
    "streams of every size and chunking are loaded as they were saved",
    /the first difference is at byte 104857[67]/
  ],
  [
    "does not clamp a range",
    ({ open }) => ({
      open: (key, options) =>
        Effect.filterOrFail(
          open(key, options),
          ({ info }) => options.range?._tag !== "Bounded" || options.range.endExclusive <= info.size,
          () => new StorageError.InvalidRange({ reason: "it ends past the object" })
        )
    }),
    "a range is clamped to the end of the object",
    /it ends past the object/
  ],
  [
    "returns no bytes for a range past the end",
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
        Effect.filterOrFail(
          open(key, options),
          ({ info }) => options.range?._tag !== "Last" || options.range.length <= info.size,
          () => new StorageError.InvalidRange({ reason: "the suffix is too long" })
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
    "loads each range of the current version",
    ({ load }) => ({
      loadRanges: (key, ranges, options) =>
        Effect.forEach(ranges, (range) => Effect.zipLeft(load(key, { ...options, range }), Effect.yieldNow()))
    }),
    "reads of an object that is being overwritten return one version",
    /loadRanges: .* none of/
  ],
  [
    "streams each part of the current version",
    ({ load, open }) =>
      mapOpened(open, (opened) => ({
        ...opened,
        stream: Stream.unfoldEffect(opened.range.start, (at) => {
          const end = Math.min(at + MiB, opened.range.endExclusive)
          return at < end
            ? Effect.map(
              load(opened.info.key, { range: ByteRange.make(at, end) }),
              (bytes) => Option.some([bytes, end] as const)
            )
            : Effect.succeedNone
        })
      })),
    "a stream whose object changes midway continues with the old version or fails",
    /a stream of an object that was overwritten by as many bytes/
  ],
  [
    "returns the same array from each load",
    ({ load, open }) => {
      const arrays = new Map<string, Uint8Array<ArrayBuffer>>()
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
    /load after its result was changed/
  ],
  [
    "returns nothing to a load of an object that is being loaded",
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
  ]
]

const openingOfServices: ReadonlyArray<Row<ServiceChange>> = [
  [
    "does not count what is read",
    ({ open }) => ({
      open: (key, options) => Effect.map(open(key, options), (opened) => ({ ...opened, position: () => 0 }))
    }),
    "the position of an opened object counts the bytes that were read",
    /the position compared with the bytes received/
  ],
  [
    "counts from the start of the object, not of the range",
    ({ open }) => ({
      open: (key, options) =>
        Effect.map(open(key, options), (opened) => ({
          ...opened,
          position: () => opened.range.start + opened.position()
        }))
    }),
    "the position of an opened object counts the bytes that were read",
    /the position (before anything is read|compared with the length of the range)/
  ],
  [
    "opens the bytes of the whole object where a range was asked for",
    ({ load, open }) => ({
      open: (key, options) =>
        Effect.gen(function*() {
          const opened = yield* open(key, options)
          return { ...opened, bytes: opened.bytes && (yield* load(key)) }
        })
    }),
    "the bytes of an opened object equal its stream",
    /the bytes of an opened object/
  ]
]

const opening: ReadonlyArray<Row<Change>> = [
  [
    "overwrites an array that is in use",
    reusing(() => true),
    "an array that is reused is not overwritten while it is in use",
    /chunks that are never free/
  ],
  [
    "asks once whether its array is free",
    (memory) => {
      let wasFree: boolean | undefined
      return reusing((isFree) => wasFree ??= isFree())(memory)
    },
    "an array that is reused is not overwritten while it is in use",
    /chunks that are never free/
  ],
  [
    "streams into one array",
    ({ open }) =>
      mapOpened(open, (opened) => {
        const array = new Uint8Array(MiB)
        return {
          ...opened,
          stream: Stream.map(opened.stream, (chunk) => {
            array.set(chunk)
            return array.subarray(0, chunk.byteLength)
          })
        }
      }),
    "changing the chunks of an opened stream changes neither the object nor later chunks",
    /chunks that are kept until the end/
  ]
]

// Listing

const withEntries = (
  change: (
    entries: StorageBackend.StorageBackend["entries"],
    options: StorageBackend.ListOptions
  ) => Stream.Stream<StorageBackend.ObjectInfo, StorageError.ListError>
): Change =>
({ entries }) => ({ entries: (options) => change(entries, options) })

const sortedBy = (rank: (key: string) => string): Change =>
  withEntries((entries, options) =>
    Stream.unwrap(
      Effect.map(
        Stream.runCollect(entries(options)),
        (infos) => Stream.fromIterable([...infos].sort((a, b) => rank(a.key) < rank(b.key) ? -1 : 1))
      )
    )
  )

const listing: ReadonlyArray<Row<Change>> = [
  [
    "lists in the order of JavaScript strings",
    sortedBy((key) => key),
    "keys are listed in UTF-8 byte order",
    /entries of everything/
  ],
  [
    "lists folder by folder",
    sortedBy((key) => key.replaceAll("/", "\0")),
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
    "includes startAfter",
    withEntries((entries, { prefix = "", startAfter = "" }) =>
      Stream.filter(entries({ prefix }), ({ key }) => ObjectKey.compare(key, startAfter) >= 0)
    ),
    "startAfter lists the keys after any string, within any prefix",
    /entries after/
  ],
  [
    "ignores the prefix where there is startAfter",
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
    "lists empty folders",
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
    "lists an object of its own",
    withEntries((entries, options) =>
      Stream.concat(Stream.make({ key: ".keep", size: 0, lastModified: new Date(), etag: "keep" }), entries(options))
    ),
    "an empty store, and a prefix without objects, list nothing",
    /entries of an empty store/
  ]
]

// Removing, copying, concurrency

const others: ReadonlyArray<Row<Change>> = [
  [
    "fails to remove a missing object",
    ({ head, remove }) => ({
      remove: (key, options) =>
        Effect.catchTag(
          head(key),
          "ObjectNotFound",
          (cause) => new StorageError.UnexpectedStorageError({ reason: "there is nothing to remove", cause })
        ).pipe(
          Effect.zipRight(remove(key, options))
        )
    }),
    "removing a missing object succeeds",
    /there is nothing to remove/
  ],
  [
    "removes everything that starts with a key",
    ({ keys, remove }) => ({
      remove: (prefix) => Stream.runForEach(keys({ prefix }), (key) => remove(key, {}))
    }),
    "a removed object is gone and its neighbours stay",
    /the listing/
  ],
  [
    "forgets the last key of a batch",
    ({ remove }) => ({
      removeAll: (keys) => Effect.as(Effect.forEach(keys.slice(0, -1), (key) => remove(key, {})), [])
    }),
    "removeAll accepts an array, a set, a generator or a stream of keys",
    /the listing/
  ],
  [
    "copies by reference",
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
    "leaves the source of a move",
    ({ copy }) => ({ move: copy }),
    "a move of any size is whole, in any folder",
    /load of "from\/object", which should not exist: expected the failure ObjectNotFound, but it succeeded/
  ],
  [
    "removes the target of a move before it opens the source",
    ({ move, remove }) => ({
      move: (from, to, options) => Effect.zipRight(remove(to, {}), move(from, to, options))
    }),
    "a move of a missing object fails with ObjectNotFound and leaves the target unchanged",
    /there is no such object/
  ],
  [
    "has an index that can differ from its objects",
    ({ head, remove, save }) => {
      const index = new Set<string>()
      return {
        save: (key, data, options) => Effect.tap(save(key, data, options), () => Effect.sync(() => index.add(key))),
        remove: (key, options) =>
          remove(key, options).pipe(
            Effect.zipRight(Effect.yieldNow()),
            Effect.zipRight(Effect.sync(() => void index.delete(key)))
          ),
        head: (key) => index.has(key) ? head(key) : Effect.fail(new StorageError.ObjectNotFound())
      }
    },
    "a concurrent save and removal leave the whole object or none",
    /load of "folder\/contested", which should not exist: expected the failure ObjectNotFound, but it succeeded/
  ],
  [
    "loses an object that is copied twice",
    ({ copy, remove }) => {
      const copied = new Set<string>()
      return {
        copy: (from, to, options) =>
          Effect.tap(copy(from, to, options), () => {
            if (copied.has(from)) return remove(from, {})
            copied.add(from)
            return Effect.void
          })
      }
    },
    "a random sequence of operations has the same results as on a map",
    /Property failed[^]*seed: [^]*Counterexample: \[\[[^]*Shrunk/
  ]
]

// What `Storage.make` ensures for every backend, and a service of another origin may get wrong.
const services: ReadonlyArray<Row<ServiceChange>> = [
  [
    "does not check the keys that it removes",
    ({ backend }) => ({ remove: (key, options = {}) => backend.remove(key, options) }),
    "an invalid key fails with InvalidKey on every operation, before any I/O",
    /remove, the key being empty \(""\): expected the failure InvalidKey, but it succeeded/
  ],
  [
    "pulls the source of a save before it checks the key",
    ({ save }) => ({
      save: (key, data, options) =>
        data instanceof Uint8Array
          ? save(key, data, options)
          : Effect.flatMap(Stream.runCollect(data), (chunks) => save(key, concat(chunks), options))
    }),
    "an invalid key fails with InvalidKey on every operation, before any I/O",
    /how often a source was pulled/
  ],
  [
    "pulls the source of a save before it checks the attributes",
    ({ save }) => ({
      save: (key, data, options) =>
        data instanceof Uint8Array
          ? save(key, data, options)
          : Effect.flatMap(Stream.runCollect(data), (chunks) => save(key, concat(chunks), options))
    }),
    "invalid attributes fail with UnsupportedOperation before any I/O",
    /how often a source was pulled/
  ],
  [
    "does not check attributes",
    ({ backend }) => ({
      copy: (from, to, options = {}) => backend.copy(from, to, options)
    }),
    "invalid attributes fail with UnsupportedOperation before any I/O",
    /copy with .*: expected the failure UnsupportedOperation, but it succeeded/
  ],
  [
    "ignores the attributes of a copy to the same key",
    ({ copy }) => ({ copy: (from, to, options) => copy(from, to, from === to ? {} : options) }),
    "a copy or move to its own key refuses attributes",
    /expected the failure UnsupportedOperation, but it succeeded/
  ],
  [
    "loads the whole object where a range is malformed",
    ({ load }) => ({ load: (key, options) => Effect.catchTag(load(key, options), "InvalidRange", () => load(key)) }),
    "a malformed range fails with InvalidRange",
    /expected the failure InvalidRange, but it succeeded/
  ],
  [
    "lists a prefix that ends in half a character",
    ({ backend, entries }) => ({
      entries: (options = {}) => options.prefix === "\ud83d" ? backend.entries(options) : entries(options)
    }),
    "a prefix that no valid key has lists nothing",
    /entries of the prefix "\\ud83d"/
  ],
  [
    "reads a stream when it is created",
    ({ load }) => ({ stream: (key, options) => Stream.fromEffect(Effect.runSync(Effect.exit(load(key, options)))) }),
    "a stream reads the object when it is run, not when it is created",
    /there is no such object/
  ],
  [
    "lists when the listing is created",
    ({ list }) => ({ list: (prefix) => Effect.runSync(Effect.exit(list(prefix))) }),
    "a listing reads the store when it is run, not when it is created",
    /expected \[\] to deeply equal \[ 'a', 'b' \]/
  ],
  [
    "wraps the failures of a stream of keys",
    ({ removeAll }) => ({ removeAll: (keys) => Effect.mapError(removeAll(keys), (cause) => wrapped(cause)) }),
    "a failure of the stream of keys is returned unchanged",
    /to be SourceFailure|to be Error/
  ]
]

export const mutants: ReadonlyArray<Mutant> = [
  ...[
    keys,
    saving,
    sources,
    preconditions,
    attributes,
    failures,
    loading,
    opening,
    listing,
    others
  ].flat().map(([what, change, rule, says]) => ({ what, storage: changed(change), rule, says })),
  ...[sourcesOfServices, failuresOfServices, openingOfServices, services].flat().map((
    [what, change, rule, says]
  ) => ({ what, storage: changedService(change), rule, says }))
]
