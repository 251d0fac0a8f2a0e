/**
 * The timer of a wait for a server, without an effect for each of its chunks.
 */
import { idleParts } from "../timeouts.js"

/**
 * Calls `late` once nothing has been told of it for `limit` milliseconds, or up to a quarter more. A time in which this
 * process was held up counts as a quarter at the most, as with `idleTimeout`.
 */
export class IdleTimer {
  readonly #timer: NodeJS.Timeout
  #left = idleParts
  #goes = false

  constructor(limit: number, late: () => void) {
    this.#timer = setInterval(() => {
      if (this.#goes) {
        this.#goes = false
        this.#left = idleParts
      } else if (--this.#left === 0) {
        this.stop()
        late()
      }
    }, limit / idleParts)
  }

  /** Something has come, or gone out. */
  goes(): void {
    this.#goes = true
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}
