/**
 * The progress of a transfer that takes longer than a second: one line that is redrawn on a terminal, otherwise a line or an
 * event every few seconds.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Storage from "../Storage.js"
import * as Output from "./output.js"

/** What has been transferred so far. */
export interface Transferred {
  bytes: number
  files: number
  /** The bytes of the whole transfer, once they are known. */
  total: number | undefined
}

export class Tracker implements Transferred {
  bytes = 0
  /** The bytes that were there already. */
  skipped = 0
  files = 0
  total: number | undefined

  /** Takes out bytes that need not be transferred. */
  skip(bytes: number): void {
    this.skipped += bytes
    if (this.total !== undefined) this.total -= bytes
  }

  /** The same storage, whose saved bytes count; where the save of a broken-off copy is resumed, that is printed. */
  readonly counting = (storage: Storage.Service): Effect.Effect<Storage.Service, never, Output.Output> =>
    Effect.map(
      Output.Output,
      (settings) =>
        Storage.withProgress(storage, ({ bytes, key, operation, total, transferred }) => {
          if (operation !== "save") return Effect.void
          this.bytes += bytes
          if (bytes > 0 || transferred === 0) return Effect.void
          this.skip(transferred)
          return Effect.provideService(
            Output.event(
              { event: "resumed", key, position: transferred, size: total },
              `resuming ${key} after ${Output.formatBytes(transferred)}`
            ),
            Output.Output,
            settings
          )
        })
    )

  /** The same storage, whose loaded bytes count. */
  readonly countingLoads: (storage: Storage.Service) => Storage.Service = Storage.withProgress((progress) =>
    progress.operation === "load"
      ? Effect.sync(() => {
        this.bytes += progress.bytes
      })
      : Effect.void
  )
}

/**
 * Runs a transfer and shows its progress. `findTotal` is run once there is progress to show, since it may take as long as a
 * listing.
 */
export const show = <A, E, R>(
  tracker: Tracker,
  transfer: Effect.Effect<A, E, R>,
  findTotal: Effect.Effect<void> = Effect.void
): Effect.Effect<A, E, R | Output.Output> =>
  Effect.flatMap(Output.Output, (settings): Effect.Effect<A, E, R | Output.Output> => {
    if (settings.quiet) return transfer
    const showing = Effect.gen(function*() {
      const speed = new Speed(tracker)
      yield* Effect.sleep("1 second")
      yield* Effect.fork(findTotal)
      const isRedrawn = Output.isTerminal() && !settings.json
      while (true) {
        yield* settings.json
          ? Output.event({ event: "progress", ...numbers(tracker), rate: Math.round(speed.rate()) })
          : Effect.sync(() => (isRedrawn ? Output.drawStatus : Output.complain)(line(tracker, speed.rate())))
        yield* Effect.sleep(isRedrawn ? "200 millis" : "5 seconds")
      }
    })
    return Effect.acquireUseRelease(
      Effect.fork(Effect.interruptible(showing)),
      () => transfer,
      (fiber) => Effect.zipRight(Fiber.interrupt(fiber), Effect.sync(Output.eraseStatus))
    )
  })

const numbers = ({ bytes, files, total }: Transferred) => ({ bytes, files, total })

/** The bytes per second of the last few seconds. */
class Speed {
  readonly #transferred: Transferred
  readonly #samples: Array<{ readonly at: number; readonly bytes: number }> = []

  constructor(transferred: Transferred) {
    this.#transferred = transferred
    this.rate()
  }

  rate(): number {
    const now = { at: performance.now(), bytes: this.#transferred.bytes }
    this.#samples.push(now)
    while (this.#samples.length > 2 && (this.#samples[0]?.at ?? 0) < now.at - window) this.#samples.shift()
    const first = this.#samples[0] ?? now
    return now.at === first.at ? 0 : (now.bytes - first.bytes) * 1000 / (now.at - first.at)
  }
}

const window = 10_000

/** For instance `1.20 GiB of 4.00 GiB (30 %), 110 MiB/s, 26 s left, 3 files`. */
export const line = ({ bytes, files, total }: Transferred, rate: number): string => {
  const isKnown = total !== undefined && total > 0
  const parts = [
    isKnown
      ? `${Output.formatBytes(bytes)} of ${Output.formatBytes(total)} (${
        Math.min(100, Math.floor(100 * bytes / total))
      } %)`
      : Output.formatBytes(bytes),
    `${Output.formatBytes(Math.round(rate))}/s`,
    ...(isKnown && rate > 0 ? [`${formatSeconds(Math.max(0, total - bytes) / rate)} left`] : []),
    Output.plural(files, "file")
  ]
  return parts.join(", ")
}

const formatSeconds = (seconds: number): string => {
  const whole = Math.ceil(seconds)
  if (whole < 60) return `${whole} s`
  const minutes = Math.floor(whole / 60)
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}
