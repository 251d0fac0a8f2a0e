/**
 * `npm run chart`: draws the pictures of the documentation: `architecture.svg`, and `benchmarks.svg` from what
 * `npm run bench -- … --json examples/pictures/benchmarks.json` has measured. Both are readable on a light and on a dark
 * page, and say in words what they show.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"

/** What the chart needs of a run of the benchmark. */
export interface Measured {
  readonly date: string
  readonly machine: string
  readonly rounds: number
  readonly results: ReadonlyArray<{
    readonly row: string
    readonly work: string
    readonly floors: ReadonlyArray<{ readonly what: string; readonly ratio: number }>
  }>
}

export const pictures = resolve(import.meta.dirname, "../../examples/pictures")

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\"", "&quot;")

const colors = (light: ReadonlyArray<string>): string => {
  const [text, faint, line, fill, accent] = light
  return `.t{fill:${text}}.f{fill:${faint}}.l{stroke:${line}}.b{fill:${fill};stroke:${line}}.a{fill:${accent}}`
}

const style = `svg{font:13px system-ui,sans-serif}.h{font-weight:600}.s{font-size:12px}` +
  colors(["#1f2328", "#59636e", "#9aa4af", "#f3f5f7", "#3b6fb6"]) +
  `@media(prefers-color-scheme:dark){${colors(["#e6edf3", "#9198a1", "#59636e", "#1c2128", "#6ea8f0"])}}`

const picture = (
  { description, height, title, width }: {
    readonly title: string
    readonly description: string
    readonly width: number
    readonly height: number
  },
  lines: ReadonlyArray<string>
): string =>
  [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `role="img" aria-labelledby="title description">`,
    `<title id="title">${escape(title)}</title>`,
    `<desc id="description">${escape(description)}</desc>`,
    `<style>${style}</style>`,
    ...lines,
    "</svg>",
    ""
  ].join("\n")

const text = (x: number, y: number, classes: string, content: string, anchor = "start"): string =>
  `<text x="${x}" y="${y}" class="${classes}"${anchor === "start" ? "" : ` text-anchor="${anchor}"`}>${
    escape(content)
  }</text>`

// Benchmarks

const shorten = (label: string, length: number): string =>
  label.length <= length ? label : `${label.slice(0, length - 1).trimEnd()}…`

/** Bars of our speed in multiples of each other contestant's; a line stands where both are equally fast. */
export const benchmarks = ({ date, machine, results, rounds }: Measured): string => {
  const [width, left, right] = [720, 250, 60]
  const rows = results.filter(({ floors }) => floors.length > 0)
  const most = Math.max(1.2, ...rows.flatMap(({ floors }) => floors.map(({ ratio }) => ratio)))
  const x = (ratio: number) => Math.round(left + (ratio / most) * (width - left - right))
  const lines: Array<string> = [text(16, 28, "t h", "Speed in multiples of the same work done by others")]
  let y = 52
  for (const { floors, work } of rows) {
    lines.push(text(16, y + 8, "t", shorten(work, 96)))
    y += 18
    for (const { ratio, what } of floors) {
      lines.push(
        text(left - 10, y + 12, "f s", shorten(what, 34), "end"),
        `<rect x="${left}" y="${y + 1}" width="${x(ratio) - left}" height="14" rx="2" class="a"/>`,
        text(x(ratio) + 6, y + 12, "t s", `${ratio.toFixed(2)}×`)
      )
      y += 20
    }
    y += 12
  }
  lines.push(
    `<path d="M${x(1)} 44V${y}" class="l" stroke-dasharray="3 3"/>`,
    text(x(1), y + 14, "f s", "1×, as fast", "middle"),
    text(16, y + 38, "f s", `${date.slice(0, 10)}, ${rounds} rounds, medians; ${shorten(machine, 80)}`)
  )
  const told = rows.map(({ floors, work }) =>
    `${work}: ${floors.map(({ ratio, what }) => `${ratio.toFixed(2)} times as fast as ${what}`).join(", ")}`
  )
  return picture(
    { title: "Benchmarks of surfing-weights", description: `${told.join(". ")}.`, width, height: y + 54 },
    lines
  )
}

// Architecture

interface Box {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly title: string
  readonly lines: ReadonlyArray<string>
}

const boxHeight = ({ lines }: Box): number => 32 + lines.length * 17

const box = (shape: Box): string =>
  [
    `<rect x="${shape.x}" y="${shape.y}" width="${shape.width}" height="${boxHeight(shape)}" rx="6" class="b"/>`,
    text(shape.x + 12, shape.y + 20, "t h", shape.title),
    ...shape.lines.map((line, i) => text(shape.x + 12, shape.y + 38 + i * 17, "f s", line))
  ].join("\n")

const arrow = (x: number, y1: number, y2: number): string =>
  `<path d="M${x} ${y1}V${y2 - 1}m-4 -6l4 6l4 -6" class="l" fill="none"/>`

/** The way of a call through the rooms of src/. */
export const architecture = (): string => {
  const width = 720
  const wide = (y: number, title: string, ...lines: ReadonlyArray<string>): Box => ({
    x: 16,
    y,
    width: width - 32,
    title,
    lines
  })
  const half = (x: number, title: string, ...lines: ReadonlyArray<string>): Box => ({
    x,
    y: 16,
    width: 336,
    title,
    lines
  })
  const boxes = [
    half(16, "Your app", "Storage.load, save, stream, list, …", "and a layer that says where the bytes are"),
    half(368, "weights/ and server/", "Safetensors, ModelChunks, TensorFlowIO,", "TransformersCache; WeightServer"),
    wide(
      110,
      "Storage",
      "Checks the key, opens the span, counts metrics, and completes each failure",
      "with its operation, backend and key."
    ),
    wide(
      204,
      "wrappers/",
      "StorageCache · StorageFailover · StorageRetry · StorageTimeout · StorageLimit · StoragePrefix",
      "StorageReadOnly · StorageEncryption · StorageCompression: none, or one around another"
    ),
    wide(298, "backends/", "FileSystemStorage · S3Storage · HttpStorage · MemoryStorage, or one of your own")
  ]
  const lines = [
    ...boxes.map(box),
    ...[184, 536].map((x) => arrow(x, 82, 110)),
    arrow(360, 176, 204),
    arrow(360, 270, 298),
    text(372, 194, "f s", "StorageBackend"),
    text(372, 288, "f s", "StorageBackend")
  ]
  return picture(
    {
      title: "The way of a call through surfing-weights",
      description:
        "An app, a module for weights or the weight server calls Storage, which checks the key, opens the span, counts " +
        "metrics and completes failures. The call passes each wrapper, which is a StorageBackend around another, and ends in one backend: " +
        "files, S3, HTTP, memory or one of your own.",
      width,
      height: 364
    },
    lines
  )
}

export const readMeasured = (): Measured =>
  JSON.parse(readFileSync(join(pictures, "benchmarks.json"), "utf8")) as Measured

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  writeFileSync(join(pictures, "architecture.svg"), architecture())
  writeFileSync(join(pictures, "benchmarks.svg"), benchmarks(readMeasured()))
}
