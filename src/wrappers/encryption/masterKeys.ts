/**
 * The master keys of a storage, which wrap the key of each object: the first one for new objects, each of them for objects that
 * were saved with it.
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { isCommonError } from "../../internal/errors.js"
import * as E from "../../StorageError.js"
import * as Cobblestone from "./cobblestone.js"
import { type Header, maxWrappedSize } from "./header.js"

type Bytes = Uint8Array<ArrayBuffer>

/** Wraps data keys by any effects, for instance those of a key management service. */
export interface KeyWrapper {
  readonly id: string
  readonly wrap: (dataKey: Redacted.Redacted<Bytes>, context: string) => Effect.Effect<Uint8Array, unknown>
  readonly unwrap: (wrapped: Bytes, context: string) => Effect.Effect<Redacted.Redacted<Uint8Array>, unknown>
}

export type KeyError = E.CommonError | E.CorruptObject

/** A master key in memory. A wrapped data key is a Cobblestone-256 message, whose context is the key of the object. */
export const inMemory = (id: string, secret: Redacted.Redacted<Uint8Array>): KeyWrapper => ({
  id,
  wrap: (dataKey, context) =>
    Effect.promise(() => Cobblestone.sealSmall(Redacted.value(secret), context, Redacted.value(dataKey))),
  unwrap: (wrapped, context) =>
    Effect.flatMap(
      Effect.promise(() => Cobblestone.openSmall(Redacted.value(secret), context, wrapped)),
      (dataKey) =>
        dataKey === undefined
          ? new E.CorruptObject({ problem: "checksum", reason: notUnwrapped(id) })
          : Effect.succeed(Redacted.make(dataKey))
    )
})

const notUnwrapped = (id: string): string =>
  `the master key ${
    JSON.stringify(id)
  } does not decrypt the data key of the object: it was saved under another key, or with another secret of this id, or its ` +
  "header is damaged"

export interface DataKey {
  readonly header: Header
  readonly secret: Redacted.Redacted<Uint8Array>
}

export class MasterKeys {
  readonly #byId: ReadonlyMap<string, KeyWrapper>
  readonly current: KeyWrapper

  constructor(keys: readonly [KeyWrapper, ...ReadonlyArray<KeyWrapper>]) {
    this.current = keys[0]
    this.#byId = new Map(keys.map((key) => [key.id, key]))
  }

  /** A new data key for Cobblestone-128, wrapped. */
  make(context: string): Effect.Effect<DataKey, KeyError> {
    return Effect.suspend(() => {
      const secret = Redacted.make(crypto.getRandomValues(new Uint8Array(16)))
      return Effect.map(this.wrap(secret, context), (header) => ({ header, secret }))
    })
  }

  /** Wraps a data key with the current master key. */
  wrap(secret: Redacted.Redacted<Uint8Array>, context: string): Effect.Effect<Header, KeyError> {
    const { id, wrap } = this.current
    const own = Redacted.make(new Uint8Array(Redacted.value(secret)))
    return wrap(own, context).pipe(
      Effect.mapError(toKeyError(id, "wrap")),
      Effect.filterOrFail(
        ({ byteLength }) => byteLength <= maxWrappedSize,
        ({ byteLength }) =>
          new E.UnexpectedStorageError({
            reason: `a wrapped data key must not exceed ${maxWrappedSize} bytes (got ${byteLength} from ${
              JSON.stringify(id)
            })`
          })
      ),
      Effect.map((wrapped) => ({ id, wrapped: new Uint8Array(wrapped) }))
    )
  }

  unwrap({ id, wrapped }: Header, context: string): Effect.Effect<Redacted.Redacted<Uint8Array>, KeyError> {
    const key = this.#byId.get(id)
    if (key === undefined) {
      const reason = `the object is encrypted with the master key ${
        JSON.stringify(id)
      }, which is not among the keys given`
      return Effect.fail(new E.AccessDenied({ reason }))
    }
    return key.unwrap(wrapped, context).pipe(
      Effect.mapError(toKeyError(id, "unwrap")),
      Effect.filterOrFail(
        (secret) => isDataKey(Redacted.value(secret)),
        () => new E.CorruptObject({ problem: "frame", reason: `${JSON.stringify(id)} unwraps to no data key` })
      )
    )
  }
}

const isDataKey = ({ byteLength }: Uint8Array): boolean => byteLength === 16 || byteLength === 32

const toKeyError = (id: string, operation: "wrap" | "unwrap") => (error: unknown): KeyError =>
  isKeyError(error) ? error : new E.UnexpectedStorageError({
    reason: `the master key ${JSON.stringify(id)} could not ${operation} a data key`,
    cause: error
  })

const isKeyError = (error: unknown): error is KeyError =>
  E.isStorageError(error) && (isCommonError(error) || error._tag === "CorruptObject")
