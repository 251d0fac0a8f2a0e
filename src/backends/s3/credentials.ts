/**
 * Credentials that others replace: in the shared files, by a program, by single sign-on, in the container. The SDK finds them
 * once and asks again only shortly before an expiry that it knows, so they are found anew when a request is refused.
 */

/** What finds credentials, as an `S3Client` has it: once, or anew with `forceRefresh`. */
export type Find = (options?: { readonly forceRefresh?: boolean }) => Promise<unknown>

/** Finding credentials that turn out to be the same takes at most one part in so many of the time. */
const share = 10

export class Credentials {
  readonly #find: Find
  #generation = 0
  #renewing: Promise<void> | undefined
  #notBefore = 0

  constructor(find: Find) {
    this.#find = find
  }

  /** A number that changes with the credentials. */
  get generation(): number {
    return this.#generation
  }

  /** Finds the credentials anew, unless that was done since `generation`; whether there are others than those of it. */
  async renew(generation: number): Promise<boolean> {
    if (generation === this.#generation) {
      this.#renewing ??= this.#renew().finally(() => {
        this.#renewing = undefined
      })
      await this.#renewing
    }
    return generation !== this.#generation
  }

  async #renew(): Promise<void> {
    const start = Date.now()
    if (start < this.#notBefore) return
    try {
      const before = contentOf(await this.#find())
      if (contentOf(await this.#find({ forceRefresh: true })) !== before) this.#generation++
    } catch {
      // What was refused is reported as such.
    }
    const end = Date.now()
    this.#notBefore = end + (end - start) * share
  }
}

/** What tells credentials apart. */
const contentOf = (found: unknown): string => {
  const { accessKeyId, secretAccessKey, sessionToken } = Object(found) as Readonly<Record<string, unknown>>
  return JSON.stringify([accessKeyId, secretAccessKey, sessionToken])
}

/** Whether a response may be the refusal of credentials; that to a `HEAD` does not say so. */
export const mayBeRefusal = ({ status }: { readonly status: number }): boolean =>
  status === 400 || status === 401 || status === 403
