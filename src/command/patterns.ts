/**
 * The patterns of `--include` and `--exclude`, as shells and rclone have them: `*` and `?` match within a folder, `**` across
 * folders. A pattern without a slash matches the name of an object in any folder, one with a slash the whole key.
 */

/** Whether a key is selected: by one of `include` if there are any, and by none of `exclude`. */
export const selects = (
  include: ReadonlyArray<string>,
  exclude: ReadonlyArray<string>
): (key: string) => boolean => {
  const included = include.map(toRegExp)
  const excluded = exclude.map(toRegExp)
  return (key) =>
    (included.length === 0 || included.some((pattern) => pattern.test(key))) &&
    !excluded.some((pattern) => pattern.test(key))
}

const toRegExp = (pattern: string): RegExp => {
  const body = pattern.replace(/^\//, "").replace(/\*\*\/?|[*?]|[^*?]+/g, (part) =>
    part === "**/"
      ? "(?:.*/)?"
      : part === "**"
      ? ".*"
      : part === "*"
      ? "[^/]*"
      : part === "?"
      ? "[^/]"
      : part.replace(/[\\^$.|+()[\]{}]/g, "\\$&"))
  return new RegExp(`^${pattern.includes("/") ? "" : "(?:.*/)?"}${body}$`, "su")
}
