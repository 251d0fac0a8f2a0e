/**
 * A reader of JSON (RFC 8259) that sees what `JSON.parse` hides: keys that stand twice, numbers that are whole in value
 * but not in writing, and whole numbers that a JavaScript number does not hold. It walks over the text and makes
 * nothing but what is asked for.
 */

/** What is wrong with the text, and where. */
export class JsonProblem extends Error {}

const tab = 0x09
const newline = 0x0a
const carriageReturn = 0x0d
const space = 0x20
const backslash = 0x5c
const zero = 0x30
const comma = 0x2c
const colon = 0x3a

export const quote = 0x22
const openBracket = 0x5b
const closeBracket = 0x5d
export const openBrace = 0x7b
const closeBrace = 0x7d

// The reference implementation goes no deeper.
const deepest = 128

export class Reader {
  at = 0

  constructor(readonly text: string) {}

  fail(reason: string): never {
    throw new JsonProblem(`${reason} at character ${this.at}`)
  }

  /** Passes over white space and gives the code of what comes next: `NaN` at the end. */
  peek(): number {
    for (;;) {
      const code = this.text.charCodeAt(this.at)
      if (code !== space && code !== newline && code !== carriageReturn && code !== tab) return code
      this.at++
    }
  }

  /** Whether this character comes next, which is then passed over. */
  accepts(code: number): boolean {
    if (this.peek() !== code) return false
    this.at++
    return true
  }

  expect(code: number): void {
    if (!this.accepts(code)) this.fail(`not valid JSON: expected ${String.fromCharCode(code)}`)
  }

  expectEnd(): void {
    if (!Number.isNaN(this.peek())) this.fail("not valid JSON: something follows its end")
  }

  /** The first key of an object, or `undefined` where it has none. Its value is to be read before the next key. */
  firstKey(): string | undefined {
    this.expect(openBrace)
    return this.accepts(closeBrace) ? undefined : this.key()
  }

  /** The key that follows, or `undefined` at the end of the object. */
  nextKey(): string | undefined {
    if (this.accepts(comma)) return this.key()
    this.expect(closeBrace)
    return undefined
  }

  private key(): string {
    const key = this.string()
    this.expect(colon)
    return key
  }

  string(): string {
    this.expect(quote)
    const { text } = this
    const start = this.at
    let escaped = false
    for (;;) {
      const code = text.charCodeAt(this.at)
      if (code === quote) break
      if (code === backslash) {
        escaped = true
        this.at++
      } else if (!(code >= space)) {
        this.fail("not valid JSON: a string with a control character, or without an end,")
      }
      this.at++
    }
    const content = text.slice(start, this.at)
    this.at++
    return escaped ? this.unescape(content) : content
  }

  private unescape(content: string): string {
    let value: unknown
    try {
      value = JSON.parse(`"${content}"`)
    } catch {
      // What it is does not matter: it is no string.
    }
    if (typeof value !== "string") this.fail("not valid JSON: a string with an escape that is none")
    if (/\p{Surrogate}/u.test(value)) this.fail("half of a surrogate pair")
    return value
  }

  /** A list of whole numbers from 0 up. */
  naturals(): Array<number> {
    const numbers: Array<number> = []
    this.expect(openBracket)
    if (this.accepts(closeBracket)) return numbers
    do {
      numbers.push(this.natural())
    } while (this.accepts(comma))
    this.expect(closeBracket)
    return numbers
  }

  private natural(): number {
    const { text } = this
    this.peek()
    const start = this.at
    let value = 0
    for (;;) {
      const digit = text.charCodeAt(this.at) - zero
      if (!(digit >= 0 && digit <= 9)) break
      value = value * 10 + digit
      this.at++
    }
    const next = text[this.at]
    if (this.at === start || next === "." || next === "e" || next === "E") {
      this.fail("expected a whole number from 0 up, written in digits alone,")
    }
    if (text.charCodeAt(start) === zero && this.at > start + 1) this.fail("not valid JSON: a number begins with 0")
    if (value > Number.MAX_SAFE_INTEGER) this.fail("a number larger than 2^53 - 1, up to which numbers here are exact,")
    return value
  }

  /** Passes over a value of any kind, and gives its text. */
  skip(): string {
    this.peek()
    const start = this.at
    let depth = 0
    do {
      const code = this.peek()
      if (code === openBrace || code === openBracket) depth++
      if (code === closeBrace || code === closeBracket) depth--
      if (depth > deepest) this.fail("values nested too deeply")
      if (code === quote) this.string()
      else if (isPunctuation(code)) this.at++
      else this.word()
    } while (depth > 0)
    const value = this.text.slice(start, this.at)
    try {
      JSON.parse(value)
    } catch {
      this.fail("not valid JSON: a value that is none ends")
    }
    return value
  }

  /** Passes over a number, or over `true`, `false` or `null`. */
  private word(): void {
    const start = this.at
    while (/[\w.+-]/.test(this.text.charAt(this.at))) this.at++
    if (this.at === start) this.fail("not valid JSON: expected a value")
  }
}

const isPunctuation = (code: number): boolean =>
  code === openBrace || code === closeBrace || code === openBracket || code === closeBracket || code === comma ||
  code === colon
