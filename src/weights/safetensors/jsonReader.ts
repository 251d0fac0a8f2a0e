/**
 * A JSON reader (RFC 8259) that sees what `JSON.parse` hides: duplicate keys, integers written as fractions, and integers
 * too large for a JavaScript number. It scans the text and builds only what is asked for.
 */
import { truncated } from "../internal/text.js"

/** The text is not the JSON that was expected. */
export class JsonError extends Error {}

const tab = 0x09
const newline = 0x0a
const carriageReturn = 0x0d
const space = 0x20
const quote = 0x22
const comma = 0x2c
const zero = 0x30
const colon = 0x3a
const openBracket = 0x5b
const backslash = 0x5c
const closeBracket = 0x5d
const letterN = 0x6e
const openBrace = 0x7b
const closeBrace = 0x7d

/** The depth limit of the reference implementation. */
const maxDepth = 128

export class JsonReader {
  private at = 0

  constructor(private readonly text: string) {}

  fail(reason: string): never {
    throw new JsonError(`${reason} at character ${this.at}`)
  }

  isAtString(): boolean {
    return this.peek() === quote
  }

  isAtObject(): boolean {
    return this.peek() === openBrace
  }

  isAtNull(): boolean {
    return this.peek() === letterN
  }

  expectEnd(): void {
    if (!Number.isNaN(this.peek())) this.fail("invalid JSON: trailing characters")
  }

  /** The first key of an object, or `undefined` if it is empty. Its value must be read before the next key. */
  firstKey(): string | undefined {
    this.expect(openBrace)
    return this.consume(closeBrace) ? undefined : this.key()
  }

  /** The next key, or `undefined` at the end of the object. */
  nextKey(): string | undefined {
    if (this.consume(comma)) return this.key()
    this.expect(closeBrace)
    return undefined
  }

  string(): string {
    this.expect(quote)
    const { text } = this
    const start = this.at
    let hasEscapes = false
    for (;;) {
      const code = text.charCodeAt(this.at)
      if (code === quote) break
      if (code === backslash) {
        hasEscapes = true
        this.at++
      } else if (!(code >= space)) {
        this.fail("invalid JSON: control character or end of text in a string")
      }
      this.at++
    }
    const content = text.slice(start, this.at)
    this.at++
    return hasEscapes ? this.unescape(content) : content
  }

  /** An array of whole numbers of at least 0, in plain digits. */
  integers(): Array<number> {
    const numbers: Array<number> = []
    this.expect(openBracket)
    if (this.consume(closeBracket)) return numbers
    do {
      numbers.push(this.integer())
    } while (this.consume(comma))
    this.expect(closeBracket)
    return numbers
  }

  /** A whole number of at least 0, in plain digits. */
  integer(): number {
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
      this.fail("expected a whole number of at least 0 in plain digits")
    }
    if (text.charCodeAt(start) === zero && this.at > start + 1) this.fail("invalid JSON: leading zero in a number")
    if (value > Number.MAX_SAFE_INTEGER) this.fail("integer larger than 2^53 - 1")
    return value
  }

  /** Skips a value of any kind and returns its text. */
  skipValue(): string {
    this.peek()
    const start = this.at
    let depth = 0
    do {
      const code = this.peek()
      if (code === openBrace || code === openBracket) depth++
      if (code === closeBrace || code === closeBracket) depth--
      if (depth > maxDepth) this.fail(`JSON nested deeper than ${maxDepth} levels`)
      if (code === quote) this.string()
      else if (isPunctuation(code)) this.at++
      else this.skipWord()
    } while (depth > 0)
    const value = this.text.slice(start, this.at)
    try {
      JSON.parse(value)
    } catch {
      this.fail("invalid JSON: invalid value")
    }
    return value
  }

  /** Skips white space and returns the code of the next character, `NaN` at the end. */
  private peek(): number {
    for (;;) {
      const code = this.text.charCodeAt(this.at)
      if (code !== space && code !== newline && code !== carriageReturn && code !== tab) return code
      this.at++
    }
  }

  /** Skips the next character if it is this one. */
  private consume(code: number): boolean {
    if (this.peek() !== code) return false
    this.at++
    return true
  }

  private expect(code: number): void {
    if (!this.consume(code)) this.fail(`invalid JSON: expected ${String.fromCharCode(code)}`)
  }

  private key(): string {
    const key = this.string()
    this.expect(colon)
    return key
  }

  private unescape(content: string): string {
    let value: unknown
    try {
      value = JSON.parse(`"${content}"`)
    } catch {
      // The check below reports it.
    }
    if (typeof value !== "string") this.fail("invalid JSON: invalid escape in a string")
    if (/\p{Surrogate}/u.test(value)) this.fail("lone surrogate in a string")
    return value
  }

  /** Skips a number, `true`, `false` or `null`. */
  private skipWord(): void {
    const start = this.at
    while (/[\w.+-]/.test(this.text.charAt(this.at))) this.at++
    if (this.at === start) this.fail("invalid JSON: expected a value")
    const word = this.text.slice(start, this.at)
    // The reference implementation has no infinity.
    if (/^[-\d]/.test(word) && !Number.isFinite(Number(word))) this.fail(`number out of range (${truncated(word, 40)})`)
  }
}

const isPunctuation = (code: number): boolean =>
  code === openBrace || code === closeBrace || code === openBracket || code === closeBracket || code === comma ||
  code === colon
