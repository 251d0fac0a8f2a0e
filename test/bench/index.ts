/**
 * `npm run bench`: how fast this library is, against others doing the same work in the same run: `node:fs` on the same
 * files from the page cache, the AWS SDK and OpenDAL on the same S3 server (see `test/support/s3Server.ts`), `node:http` and nginx on the same files.
 * `npm run bench -- load s3-load --rounds 15` measures some rows only, or for longer; `files`, `wrappers`, `http` and `s3` are all of a kind.
 *
 * Beside its time stands the processor time that a run took of this process, in which the server's is not. The files are made in a new directory below `BENCH_DIRECTORY`, or where the system has its temporary files, and
 * removed again. A target that is missed does not fail the run; wrong bytes do.
 */
import assert from "node:assert/strict"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout } from "node:timers/promises"
import { parseArgs } from "node:util"
import { check, MiB } from "./content.js"
import * as http from "./http.js"
import { httpRows } from "./httpRows.js"
import { collectGarbage, peakOf } from "./peakMemory.js"
import { type Contestant, type Row, rows as fileRows } from "./rows.js"
import * as s3 from "./s3.js"
import { s3Rows } from "./s3Rows.js"
import { wrapperRows } from "./wrapperRows.js"

const rows = [...fileRows, ...wrapperRows, ...httpRows, ...s3Rows]

/** What one run took, in milliseconds. */
interface Sample {
  readonly time: number
  readonly cpu: number
}

/** Runs it once. Whatever it left is dealt with outside of the time it took. */
const sample = async ({ after, run }: Contestant, bytes: number, first: boolean, clean: boolean): Promise<Sample> => {
  if (clean) collectGarbage()
  // The memory of what was collected is given back by another thread.
  await setTimeout(20)
  let seen = 0
  const cpuBefore = process.cpuUsage()
  const start = performance.now()
  await run((chunk, position) => {
    seen += chunk.length
    if (first) check(chunk, position)
  })
  const time = performance.now() - start
  const { system, user } = process.cpuUsage(cpuBefore)
  assert.equal(seen, bytes, "another number of bytes than expected")
  await after?.(first)
  return { time, cpu: (system + user) / 1000 }
}

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const [low = NaN, high = NaN] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]
  return (low + high) / 2
}

/** The lines of the table that a row makes: one for each floor, one for the memory. */
const measure = async (row: Row, directory: string, rounds: number): Promise<Array<ReadonlyArray<string>>> => {
  const { floors, ours, place = directory } = await row.prepare(directory)
  // A forced collection makes V8 compile anew what it had optimized, which doubles what a small request costs.
  const clean = !s3Rows.includes(row) && !httpRows.includes(row)
  const contestants = [...floors, ours]
  const samples = new Map(contestants.map((contestant): [Contestant, Array<Sample>] => [contestant, []]))
  // The first round warms up and is checked byte by byte.
  for (let round = 0; round <= rounds; round++) {
    for (const [contestant, taken] of samples) {
      try {
        const took = await sample(contestant, row.bytes, round === 0, clean)
        if (round > 0) taken.push(took)
      } catch (cause) {
        throw new Error(`${row.work}, ${contestant.what}, round ${round}: ${String(cause)}`, { cause })
      }
    }
  }
  const timeOf = (contestant: Contestant) => median((samples.get(contestant) ?? []).map(({ time }) => time))
  const cpuOf = (contestant: Contestant) => median((samples.get(contestant) ?? []).map(({ cpu }) => cpu))
  const time = timeOf(ours)
  const speed = row.unit === "MiB"
    ? `${thousands(row.amount / time * 1000)} MiB/s`
    : `${(time / row.amount * 1000).toFixed(2)} µs each`
  const shown = (contestant: Contestant) => `${milliseconds(timeOf(contestant))} (${milliseconds(cpuOf(contestant))})`
  const lines = floors.flatMap((floor) => {
    const ratio = timeOf(floor) / time
    const cpu = cpuOf(ours) / cpuOf(floor)
    const speedLine = [
      row.work,
      floor.what,
      shown(floor),
      `${shown(ours)}, ${speed}`,
      ratio.toFixed(2),
      ...(floor.atLeast === undefined ? ["", ""] : [`>= ${floor.atLeast}`, verdict(ratio >= floor.atLeast)])
    ]
    const more = (time - timeOf(floor)) / row.amount * 1000
    const limits = [
      floor.cpuAtMost === undefined ? [] : [
        [
          `${row.work}: processor time`,
          floor.what,
          "",
          "",
          cpu.toFixed(2),
          `<= ${floor.cpuAtMost}`,
          verdict(cpu <= floor.cpuAtMost)
        ]
      ],
      floor.microsecondsMore === undefined ? [] : [
        [
          `${row.work}: more`,
          floor.what,
          "",
          `${more.toFixed(2)} µs each`,
          "",
          `<= ${floor.microsecondsMore} µs`,
          verdict(more <= floor.microsecondsMore)
        ]
      ]
    ]
    return [speedLine, ...limits.flat()]
  })
  if (row.microsecondsAtMost !== undefined) {
    const each = time / row.amount * 1000
    lines.push([
      row.work,
      "",
      "",
      `${shown(ours)}, ${speed}`,
      "",
      `<= ${row.microsecondsAtMost} µs`,
      verdict(each <= row.microsecondsAtMost)
    ])
  }
  if (row.memory === undefined) return lines
  const { atMost, object, what, work } = row.memory
  const peak = await peakOf(work, place)
  const over = (bytes: number) =>
    (object === 0 ? "" : bytes < 0 ? "object - " : "object + ") + `${thousands(Math.abs(bytes) / MiB)} MiB`
  return [...lines, [
    `peak memory of ${what}`,
    "",
    "",
    over(peak - object),
    "",
    ...(atMost === undefined ? ["", ""] : [`<= ${over(atMost)}`, verdict(peak - object <= atMost)])
  ]]
}

const verdict = (reached: boolean): string => reached ? "reached" : "MISSED"

const thousands = (value: number): string => value.toLocaleString("en", { maximumFractionDigits: 0 })

const milliseconds = (time: number): string => `${thousands(time)} ms`

const heading = ["work", "against", "its time (cpu)", "ours", "ratio", "target", ""]

const print = (lines: ReadonlyArray<ReadonlyArray<string>>): void => {
  const widths = heading.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  for (const line of lines) {
    console.log(line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd())
  }
}

const main = async (): Promise<void> => {
  const { positionals: names, values } = parseArgs({
    allowPositionals: true,
    options: { rounds: { type: "string", default: "7" } }
  })
  const rounds = Number(values.rounds)
  const groups = new Map([
    ["files", fileRows],
    ["wrappers", wrapperRows],
    ["http", httpRows],
    ["s3", s3Rows],
    ...rows.map((row) => [row.name, [row]] as const)
  ])
  const unknown = names.filter((name) => !groups.has(name))
  if (unknown.length > 0) throw new Error(`no row ${unknown.join(", ")}; there are ${[...groups.keys()].join(", ")}`)
  const chosen = names.length === 0 ? rows : names.flatMap((name) => groups.get(name) ?? [])
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds takes a number from 1 up")

  const root = fs.mkdtempSync(path.join(process.env["BENCH_DIRECTORY"] ?? os.tmpdir(), "surfing-weights-bench-"))
  process.on("exit", () => fs.rmSync(root, { recursive: true, force: true }))
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(1))

  const lines: Array<ReadonlyArray<string>> = [heading]
  try {
    for (const row of chosen) {
      console.error(`measuring ${row.name} …`)
      const directory = path.join(root, row.name)
      fs.mkdirSync(directory)
      lines.push(...await measure(row, directory, rounds))
      fs.rmSync(directory, { recursive: true })
    }
  } finally {
    http.close()
    const server = await s3.close()
    if (server !== undefined) console.log(`S3 is ${server}`)
    console.log(
      `Node ${process.version}, ${os.availableParallelism()} cores, medians of ${rounds} rounds; ratio: our speed in ` +
        "multiples of the other's\n"
    )
    print(lines)
  }
}

await main()
