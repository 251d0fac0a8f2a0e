/**
 * Values of options that have a unit or a form of their own.
 */
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { UsageError } from "./failures.js"

/** A size such as `64MiB`. */
export const parseSize = (option: string, text: string): Either.Either<number, UsageError> => {
  const [, digits, unit = "B"] = /^(\d+) ?([KMGT]iB|B)?$/.exec(text) ?? []
  return digits === undefined
    ? wrong(option, "a size, for instance 64MiB", text)
    : Either.right(Number(digits) * 1024 ** (unit === "B" ? 0 : "KMGT".indexOf(unit.charAt(0)) + 1))
}

/** A duration such as `10 minutes`. */
export const parseDuration = (option: string, text: string): Either.Either<Duration.Duration, UsageError> =>
  Option.match(Duration.decodeUnknown(text), {
    onNone: () => wrong(option, "a duration, for instance 10 minutes", text),
    onSome: Either.right
  })

/** A port, or 0 for any that is free. */
export const parsePort = (option: string, text: string): Either.Either<number, UsageError> =>
  /^\d{1,5}$/.test(text) && Number(text) <= 65_535
    ? Either.right(Number(text))
    : wrong(option, "0 to 65535", text)

const wrong = (option: string, allowed: string, got: string): Either.Either<never, UsageError> =>
  Either.left(new UsageError({ message: `--${option} must be ${allowed} (got ${JSON.stringify(got)})` }))
