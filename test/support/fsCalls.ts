/**
 * The calls of this process into `node:fs`.
 */
import { Effect } from "effect"
import fs from "node:fs"
import { syncBuiltinESMExports } from "node:module"

type Method = (...args: Array<unknown>) => unknown

/** A call, with its path or descriptor. */
export interface Call {
  readonly name: string
  readonly target: unknown
  readonly flags: unknown
}

/** Everything of `node:fs` that is a function, but not a class. */
const methodsOf = (object: object): Array<[string, Method]> =>
  Object.entries(object).filter((entry): entry is [string, Method] =>
    typeof entry[1] === "function" && /^[a-z]/.test(entry[0])
  )

/** Replaces methods of `node:fs`, or of its promises, during an effect. */
export const replacing =
  (methods: Record<string, unknown>, object: object = fs) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const originals = Object.keys(methods).map((name): [string, unknown] => [name, Reflect.get(object, name)])
      const put = (methods: object) => {
        Object.assign(object, methods)
        syncBuiltinESMExports()
      }
      put(methods)
      return Effect.ensuring(effect, Effect.sync(() => put(Object.fromEntries(originals))))
    })

/** The result of an effect, and the calls that it made. */
export const recording = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, Array<Call>], E, R> =>
  Effect.suspend(() => {
    const calls: Array<Call> = []
    const recorded = (object: object, prefix: string) =>
      Object.fromEntries(
        methodsOf(object).map(([name, method]) => {
          const record: Method = (...args) => {
            calls.push({ name: prefix + name, target: args[0], flags: args[1] })
            return Reflect.apply(method, object, args)
          }
          return [name, Object.assign(record, method)]
        })
      )
    return effect.pipe(
      replacing(recorded(fs, "")),
      replacing(recorded(fs.promises, "promises."), fs.promises),
      Effect.map((result) => [result, calls] as const)
    )
  })

const opening = new Set(
  [
    "open",
    "openSync",
    "readFile",
    "readFileSync",
    "createReadStream",
    "openAsBlob",
    "promises.open",
    "promises.readFile"
  ]
)

/** Whether a file is opened only for its place, with the flag `O_PATH` of Linux. */
const isForPlace = ({ flags }: Call): boolean => typeof flags === "number" && (flags & 0o10000000) !== 0

/** The paths of the files that were opened for reading. */
export const openedPaths = (calls: ReadonlyArray<Call>): Array<string> =>
  calls.flatMap((call) =>
    opening.has(call.name) && typeof call.target === "string" && !isForPlace(call) ? [call.target] : []
  )

/** The calls that have to do with a path below a folder. */
export const callsBelow = (calls: ReadonlyArray<Call>, folder: string): ReadonlyArray<Call> =>
  calls.filter(({ target }) => typeof target === "string" && target.includes(folder))
