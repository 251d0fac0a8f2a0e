/**
 * What a benchmark tells: of the machine, of each row, and of what has changed since an earlier run, which is read from
 * the file that it wrote.
 */
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import { MiB } from "./content.js"
import type { Floor, Row } from "./rows.js"

/** What one run took, in milliseconds. */
export interface Sample {
  readonly time: number
  readonly cpu: number
}

/** The medians of a contestant's samples. */
interface Measured extends Sample {
  readonly what: string
  readonly samples: ReadonlyArray<Sample>
}

interface MeasuredFloor extends Measured, Omit<Floor, "open"> {
  /** Our speed in multiples of this one's. */
  readonly ratio: number
  /** Our processor time in multiples of this one's. */
  readonly cpuRatio: number
}

export interface Result extends Pick<Row, "work" | "amount" | "unit" | "microsecondsAtMost"> {
  readonly kind: string
  readonly row: string
  readonly ours: Measured
  readonly floors: ReadonlyArray<MeasuredFloor>
  readonly memory?: NonNullable<Row["memory"]> & { readonly peak: number }
}

/** Where and of what something was measured. */
interface Machine {
  readonly date: string
  readonly machine: string
  readonly versions: Readonly<Record<string, string>>
  readonly commit: string
}

export interface Run extends Machine {
  readonly rounds: number
  /** Which S3 server. */
  readonly s3?: string
  readonly results: ReadonlyArray<Result>
}

type Lines = ReadonlyArray<ReadonlyArray<string>>

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const [low = NaN, high = NaN] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]
  return (low + high) / 2
}

export const measured = (what: string, samples: ReadonlyArray<Sample>): Measured => ({
  what,
  time: median(samples.map(({ time }) => time)),
  cpu: median(samples.map(({ cpu }) => cpu)),
  samples
})

// The machine

const root = new URL("../../", import.meta.url)

const git = (...args: ReadonlyArray<string>): string | undefined => {
  try {
    return execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
  } catch {
    return undefined
  }
}

const versionOf = (name: string, folder: string): string => {
  const file = new URL(`${folder}node_modules/${name}/package.json`, root)
  if (!fs.existsSync(file)) return "not installed"
  return (JSON.parse(fs.readFileSync(file, "utf8")) as { readonly version: string }).version
}

export const machine = (): Machine => {
  const [cpu] = os.cpus()
  const memory = `${thousands(os.totalmem() / 1024 / MiB)} GiB`
  const ours = ["effect", "@effect/platform", "@effect/platform-node", "undici", "@aws-sdk/client-s3"]
  const commit = git("rev-parse", "--short=12", "HEAD") ?? "unknown"
  return {
    date: new Date().toISOString(),
    machine: `${cpu?.model.trim()}, ${os.availableParallelism()} cores, ${memory}, ${os.type()} ${os.release()}`,
    versions: {
      node: process.versions.node,
      ...Object.fromEntries(ours.map((name) => [name, versionOf(name, "")])),
      ...Object.fromEntries(["@aws-sdk/lib-storage", "opendal"].map((name) => [name, versionOf(name, "test/bench/")]))
    },
    commit: git("status", "--porcelain", "--untracked-files=no") ? `${commit}, with changes` : commit
  }
}

// The table

const verdict = (reached: boolean): string => reached ? "reached" : "MISSED"

const thousands = (value: number): string => value.toLocaleString("en", { maximumFractionDigits: 0 })

const milliseconds = (time: number): string => `${thousands(time)} ms`

const shown = ({ cpu, time }: Sample): string => `${milliseconds(time)} (${milliseconds(cpu)})`

const shownWithSpeed = ({ amount, ours, unit }: Result): string =>
  `${shown(ours)}, ` + (unit === "MiB"
    ? `${thousands(amount / ours.time * 1000)} MiB/s`
    : `${(ours.time / amount * 1000).toFixed(2)} µs each`)

/** A line for a floor, and one for each other limit that it sets. */
const floorLines = (result: Result, floor: MeasuredFloor): Lines => {
  const { amount, ours, work } = result
  const { atLeast, cpuAtMost, cpuRatio, microsecondsMore, ratio, what } = floor
  const more = (ours.time - floor.time) / amount * 1000
  const lines = [[
    work,
    what,
    shown(floor),
    shownWithSpeed(result),
    ratio.toFixed(2),
    ...(atLeast === undefined ? ["", ""] : [`>= ${atLeast}`, verdict(ratio >= atLeast)])
  ]]
  if (cpuAtMost !== undefined) {
    const reached = verdict(cpuRatio <= cpuAtMost)
    lines.push([`${work}: processor time`, what, "", "", cpuRatio.toFixed(2), `<= ${cpuAtMost}`, reached])
  }
  if (microsecondsMore !== undefined) {
    const reached = verdict(more <= microsecondsMore)
    lines.push([`${work}: more`, what, "", `${more.toFixed(2)} µs each`, "", `<= ${microsecondsMore} µs`, reached])
  }
  return lines
}

const memoryLine = ({ atMost, object, peak, what }: NonNullable<Result["memory"]>): ReadonlyArray<string> => {
  const over = (bytes: number) =>
    (object === 0 ? "" : bytes < 0 ? "object - " : "object + ") + `${thousands(Math.abs(bytes) / MiB)} MiB`
  return [
    `peak memory of ${what}`,
    "",
    "",
    over(peak - object),
    "",
    ...(atMost === undefined ? ["", ""] : [`<= ${over(atMost)}`, verdict(peak - object <= atMost)])
  ]
}

/** The lines of a row: one for each floor, one for the memory. */
const rowLines = (result: Result): Lines => {
  const lines = result.floors.flatMap((floor) => floorLines(result, floor))
  const { amount, memory, microsecondsAtMost: most, ours, work } = result
  if (most !== undefined) {
    const reached = verdict(ours.time / amount * 1000 <= most)
    lines.push([work, "", "", shownWithSpeed(result), "", `<= ${most} µs`, reached])
  }
  return memory === undefined ? lines : [...lines, memoryLine(memory)]
}

export const linesOf = ({ commit, machine, results, rounds, s3, versions }: Run): Lines => [
  [`Machine: ${machine}`],
  [`Versions: ${Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ")}`],
  [`Commit: ${commit}`],
  ...(s3 === undefined ? [] : [[`S3 is ${s3}`]]),
  [`Medians of ${rounds} rounds; ratio: our speed in multiples of the other's`],
  [],
  ["work", "against", "its time (cpu)", "ours", "ratio", "target", ""],
  ...results.flatMap(rowLines)
]

/** In columns, but for lines of a single cell. */
export const print = (lines: Lines): void => {
  const table = lines.filter((line) => line.length > 1)
  const columns = Math.max(...table.map((line) => line.length))
  const widths = Array.from({ length: columns }, (_, i) => Math.max(...table.map((line) => line[i]?.length ?? 0)))
  for (const line of lines) {
    const cells = line.length > 1 ? line.map((cell, column) => cell.padEnd(widths[column] ?? 0)) : line
    console.log(cells.join("  ").trimEnd())
  }
}

// Earlier runs

export const write = (file: string, run: Run): void => fs.writeFileSync(file, JSON.stringify(run, null, 2) + "\n")

export const read = (file: string): Run => JSON.parse(fs.readFileSync(file, "utf8")) as Run

/** What can be compared with another run, each with what the others did at the same time: by row, and by other. */
const comparable = ({ results }: Run): ReadonlyMap<string, readonly [string, string, number]> =>
  new Map(
    results.flatMap(({ floors, memory, ours, row }) => [
      ...floors.flatMap(({ cpuRatio, ratio, what }) => [
        [row, what, ratio] as const,
        [`${row}: processor time`, what, cpuRatio] as const
      ]),
      ...(floors.length > 0 ? [] : [[`${row}: milliseconds`, "", ours.time] as const]),
      ...(memory === undefined ? [] : [[`${row}: MiB at the peak`, "", (memory.peak - memory.object) / MiB] as const])
    ]).map((line) => [`${line[0]} ${line[1]}`, line])
  )

/** The lines that tell how what both runs have measured has changed. */
export const changes = (before: Run, after: Run): Lines => {
  const earlier = comparable(before)
  const lines = [...comparable(after)].flatMap(([key, [row, what, now]]) => {
    const value = earlier.get(key)?.[2]
    return value === undefined ? [] : [[row, what, value.toFixed(2), now.toFixed(2), (now / value).toFixed(2)]]
  })
  return [
    [],
    [`Since ${before.commit} of ${before.date}, on ${before.machine}, ${before.rounds} rounds:`],
    [],
    ["row", "against", "before", "after", "after / before"],
    ...lines
  ]
}
