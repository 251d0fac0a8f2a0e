/**
 * Checks of option values. Each returns the value, or the option's name and why the value is rejected.
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Either from "effect/Either"

/** An option whose value is rejected. */
export interface InvalidOption {
  readonly option: string
  readonly reason: string
}

/** A whole number of at least `min`. */
export const integer = (option: string, value: number, min: number): Either.Either<number, InvalidOption> =>
  Number.isSafeInteger(value) && value >= min
    ? Either.right(value)
    : Either.left({ option, reason: `must be a whole number of at least ${min} (got ${value})` })

/** A size of at least one byte. */
export const size = (option: string, value: FileSystem.SizeInput): Either.Either<number, InvalidOption> =>
  Number.isSafeInteger(Number(value)) && value >= 1
    ? Either.right(Number(value))
    : Either.left({ option, reason: `must be a whole number of bytes of at least 1 (got ${value} bytes)` })

/** Names, at least one. */
export const names = (
  option: string,
  value: ReadonlyArray<string>
): Either.Either<ReadonlyArray<string>, InvalidOption> =>
  Array.isArray(value) && value.length > 0 && value.every((name) => typeof name === "string" && name !== "")
    ? Either.right(value)
    : Either.left({ option, reason: `must be an array of at least one name (got ${JSON.stringify(value)})` })
