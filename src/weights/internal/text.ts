/**
 * Text of unknown origin, such as names out of a file, as messages show it.
 */

/** The text, cut after `maxLength` characters. */
export const truncated = (text: string, maxLength: number): string =>
  text.length > maxLength ? `${text.slice(0, maxLength)}…` : text

/** The text in quotes, cut after 100 characters. */
export const quoted = (text: string): string =>
  text.length > 100 ? `${JSON.stringify(text.slice(0, 100))}…` : JSON.stringify(text)

/** The first 12 of some texts, in quotes. */
export const quotedList = (texts: ReadonlyArray<string>): string =>
  texts.length === 0 ? "none" : texts.slice(0, 12).map(quoted).join(", ") + (texts.length > 12 ? ", …" : "")
