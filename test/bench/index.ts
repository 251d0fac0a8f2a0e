/**
 * `npm run bench`: how fast this library is, against others doing the same work in the same run: `node:fs` on the same
 * files from the page cache, the AWS SDK and OpenDAL on the same S3 server (see `test/support/s3Server.ts`), `node:http`
 * and nginx on the same files. `npm run bench -- load s3-load --rounds 15` measures some rows only, or for longer; `files`,
 * `wrappers`, `weights`, `http` and `s3` are all of a kind.
 *
 * Each row is measured in a process of its own, whose heap holds nothing of another's. Beside its time stands the
 * processor time that a run took of that process, in which the server's is not. The files are made in a new directory
 * below `BENCH_DIRECTORY`, or where the system has its temporary files, and removed again. A target that is missed does
 * not fail the run; wrong bytes do.
 */
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { text } from "node:stream/consumers"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { start as startS3 } from "../support/s3Server.js"
import { check, MiB } from "./content.js"
import { peakOf } from "./peakMemory.js"
import type { Contestant, Row } from "./rows.js"

/** The rows of each kind, loaded where they are needed: what a process does not measure, it does not hold. */
const kinds: Record<string, () => Promise<ReadonlyArray<Row>>> = {
  files: async () => (await import("./rows.js")).rows,
  wrappers: async () => (await import("./wrapperRows.js")).wrapperRows,
  weights: async () => [
    ...(await import("./weightRows.js")).weightRows,
    ...(await import("./chunkRows.js")).chunkRows
  ],
  http: async () => (await import("./httpRows.js")).httpRows,
  s3: async () => (await import("./s3Rows.js")).s3Rows
}

/** What one run took, in milliseconds. */
interface Sample {
  readonly time: number
  readonly cpu: number
}

/**
 * Runs it once. What it left of garbage is whoever's comes next, as in an app: to force a collection before each run
 * would make V8 compile anew what it had optimized, and leave it with so low a limit that all contestants spend most of
 * their time in collections.
 */
const sample = async ({ after, run }: Contestant, bytes: number, first: boolean): Promise<Sample> => {
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

/** How long each contestant runs before it is measured, in milliseconds. */
const warmUp = 1000

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const [low = NaN, high = NaN] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]
  return (low + high) / 2
}

/** The lines of the table that a row makes: one for each floor, one for the memory. */
const measure = async (row: Row, directory: string, rounds: number): Promise<Array<ReadonlyArray<string>>> => {
  const { floors, ours, place = directory } = await row.prepare(directory)
  const contestants = [...floors, ours]
  const samples = new Map(contestants.map((contestant): [Contestant, Array<Sample>] => [contestant, []]))
  const run = async (contestant: Contestant, round: number): Promise<Sample> => {
    try {
      return await sample(contestant, row.bytes, round === 0)
    } catch (cause) {
      throw new Error(`${row.work}, ${contestant.what}, round ${round}: ${String(cause)}`, { cause })
    }
  }
  // Each runs until V8 has compiled it; these rounds are checked byte by byte.
  for (const contestant of contestants) {
    let time = 0
    while (time < warmUp) time += (await run(contestant, 0)).time
  }
  for (let round = 1; round <= rounds; round++) {
    for (const [contestant, taken] of samples) taken.push(await run(contestant, round))
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

/** The lines of one row, as its process has measured them. */
const measured = async (
  kind: string,
  row: string,
  directory: string,
  rounds: number
): Promise<Array<ReadonlyArray<string>>> => {
  const child = spawn(process.execPath, [...process.execArgv, self, "--row", kind, row, directory, String(rounds)], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  const stop = () => child.kill()
  process.on("exit", stop)
  const [lines] = await Promise.all([text(child.stdout), once(child, "close")])
  process.off("exit", stop)
  if (child.exitCode !== 0) throw new Error(`${row} could not be measured`)
  return JSON.parse(lines) as Array<ReadonlyArray<string>>
}

const measureOne = async (kind = "", name = "", directory = "", rounds = ""): Promise<void> => {
  const row = (await kinds[kind]?.())?.find((row) => row.name === name)
  assert(row !== undefined)
  const lines = await measure(row, directory, Number(rounds))
  process.stdout.write(JSON.stringify(lines), () => process.exit())
}

const main = async (): Promise<void> => {
  const { positionals: names, values } = parseArgs({
    allowPositionals: true,
    options: { rounds: { type: "string", default: "7" }, row: { type: "boolean", default: false } }
  })
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(1))
  if (values.row) return measureOne(...names)
  const rounds = Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds takes a number from 1 up")
  const all: Array<{ readonly kind: string; readonly name: string }> = []
  for (const [kind, rows] of Object.entries(kinds)) all.push(...(await rows()).map(({ name }) => ({ kind, name })))
  const known = new Set(all.flatMap(({ kind, name }) => [kind, name]))
  const unknown = names.filter((name) => !known.has(name))
  if (unknown.length > 0) throw new Error(`no row ${unknown.join(", ")}; there are ${[...known].join(", ")}`)
  const chosen = names.length === 0
    ? all
    : names.flatMap((chosen) => all.filter(({ kind, name }) => kind === chosen || name === chosen))

  const root = fs.mkdtempSync(path.join(process.env["BENCH_DIRECTORY"] ?? os.tmpdir(), "surfing-weights-bench-"))
  process.on("exit", () => fs.rmSync(root, { recursive: true, force: true }))

  const server = chosen.some(({ kind }) => kind === "s3") ? await startS3() : undefined
  if (server !== undefined) {
    // For the processes of the rows.
    process.env["S3_TEST_ENDPOINT"] = server.endpoint
    process.env["S3_TEST_REGION"] = server.region
    process.env["S3_TEST_ACCESS_KEY_ID"] = server.accessKeyId
    process.env["S3_TEST_SECRET_ACCESS_KEY"] = server.secretAccessKey
  }
  const lines: Array<ReadonlyArray<string>> = [heading]
  try {
    for (const { kind, name } of chosen) {
      console.error(`measuring ${name} …`)
      const directory = path.join(root, name)
      fs.mkdirSync(directory)
      lines.push(...await measured(kind, name, directory, rounds))
      fs.rmSync(directory, { recursive: true })
    }
  } finally {
    await server?.stop()
    if (server !== undefined) console.log(`S3 is ${server.description}`)
    console.log(
      `Node ${process.version}, ${os.availableParallelism()} cores, medians of ${rounds} rounds; ratio: our speed in ` +
        "multiples of the other's\n"
    )
    print(lines)
  }
}

const self = fileURLToPath(import.meta.url)

await main()
