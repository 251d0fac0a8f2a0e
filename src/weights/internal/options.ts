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

/** A whole number, `min` or more. */
export const integer = (option: string, value: number, min: number): Either.Either<number, InvalidOption> =>
  check(option, value, min, "a whole number")

/** A size of at least one byte. */
export const size = (option: string, value: FileSystem.SizeInput): Either.Either<number, InvalidOption> =>
  check(option, Number(value), 1, "a whole number of bytes")

const check = (option: string, value: number, min: number, kind: string): Either.Either<number, InvalidOption> =>
  Number.isSafeInteger(value) && value >= min
    ? Either.right(value)
    : Either.left({ option, reason: `must be ${kind}, ${min} or more (got ${value})` })
