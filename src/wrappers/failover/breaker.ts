/**
 * A circuit breaker. It is closed while its storage is used, and opens after `failureThreshold` failures in a row. After
 * `openDuration` it is half-open: one operation tries the storage, and its outcome closes or opens the breaker.
 */
export class Breaker {
  readonly #failureThreshold: number
  readonly #openDuration: number
  #failures = 0
  #openUntil: number | undefined
  #isTried = false

  /** `openDuration` is in milliseconds. */
  constructor({ failureThreshold, openDuration }: {
    readonly failureThreshold: number
    readonly openDuration: number
  }) {
    this.#failureThreshold = failureThreshold
    this.#openDuration = openDuration
  }

  get isClosed(): boolean {
    return this.#openUntil === undefined
  }

  /** In a row. */
  get failures(): number {
    return this.#failures
  }

  /** Closes. Whether it was open. */
  recordSuccess(): boolean {
    const wasOpen = this.#openUntil !== undefined
    this.#failures = 0
    this.#openUntil = undefined
    return wasOpen
  }

  /** Opens at the threshold, or again where it was half-open. Returns whether it was closed and now is open. */
  recordFailure(now: number): boolean {
    this.#failures++
    const openUntil = this.#openUntil
    if (this.#failures < this.#failureThreshold || (openUntil !== undefined && now < openUntil)) return false
    this.#openUntil = now + this.#openDuration
    return openUntil === undefined
  }

  /** Whether it is half-open and no operation tries it yet; then the caller does, until `endTrial`. */
  tryHalfOpen(now: number): boolean {
    if (this.#openUntil === undefined || this.#isTried || now < this.#openUntil) return false
    this.#isTried = true
    return true
  }

  endTrial(): void {
    this.#isTried = false
  }
}
