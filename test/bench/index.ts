/**
 * `npm run bench`: how fast this library is, against others doing the same work in the same run: `node:fs` on the same
 * files from the page cache, the AWS SDK and OpenDAL on the same S3 server (see `test/support/s3Server.ts`), `node:http`
 * and nginx on the same files. `npm run bench -- load s3-load --rounds 15` measures some rows only, or for longer; `files`,
 * `wrappers`, `weights`, `http` and `s3` are all of a kind.
 *
 * Each contestant has a process of its own, so that none collects another's garbage, and in each round they take their
 * turns in another order, since what the one before has left of the disk's and the memory's work is paid by the next.
 * Beside its time stands the processor time that a run took of its process, in which the server's is not. The files are
 * made in a new directory below `BENCH_DIRECTORY`, or where the system has its temporary files, and removed again. A
 * target that is missed does not fail the run; wrong bytes do.
 */
import assert from "node:assert/strict"
import { type ChildProcess, fork } from "node:child_process"
import { on, once } from "node:events"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { start as startS3 } from "../support/s3Server.js"
import { check, MiB } from "./content.js"
import { peakOf } from "./peakMemory.js"
import type { Contestant, Opened, Row } from "./rows.js"

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

/** How long each contestant runs before it is measured, in milliseconds. */
const warmUp = 1000

// The process of a contestant

/**
 * Runs it once. What it left of garbage stays for its next run, as in an app: to force a collection before each run would
 * make V8 compile anew what it had optimized, and leave it with so low a limit that it would spend most of its time in
 * collections.
 */
const sample = async ({ after, run }: Opened, bytes: number, first: boolean): Promise<Sample> => {
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

/** Runs until V8 has compiled it, checked byte by byte; then once for each message from its parent, whom it answers. */
const compete = async (kind = "", name = "", index = "", directory = ""): Promise<void> => {
  process.on("disconnect", () => process.exit())
  const row = (await kinds[kind]?.())?.find((row) => row.name === name)
  assert(row !== undefined)
  const opened = await contestantsOf(row)[Number(index)]?.open(directory)
  assert(opened !== undefined)
  let time = 0
  while (time < warmUp) time += (await sample(opened, row.bytes, true)).time
  process.send?.("ready")
  for await (const _ of on(process, "message")) process.send?.(await sample(opened, row.bytes, false))
}

// The process that compares them

const contestantsOf = ({ floors, ours }: Row): ReadonlyArray<Contestant> => [...floors, ours]

const self = fileURLToPath(import.meta.url)

/** What a contestant says next. It says itself, to the terminal, why it ends instead. */
const answer = (child: ChildProcess, what: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const ended = () => reject(new Error(`${what} has failed`))
    child.once("exit", ended).once("message", (said) => {
      child.off("exit", ended)
      resolve(said)
    })
  })

/** The samples of each of a row's contestants, ours being the last. */
const compare = async (kind: string, row: Row, directory: string, rounds: number) => {
  const running: Array<{ readonly what: string; readonly child: ChildProcess; readonly samples: Array<Sample> }> = []
  const stop = () => running.forEach(({ child }) => child.kill())
  process.on("exit", stop)
  try {
    for (const [index, { what }] of contestantsOf(row).entries()) {
      const child = fork(self, ["--contestant", kind, row.name, String(index), directory])
      running.push({ what, child, samples: [] })
      await answer(child, what)
    }
    for (let round = 0; round < rounds; round++) {
      for (const { child, samples, what } of shuffled(running)) {
        await setTimeout(20)
        child.send("run")
        samples.push(await answer(child, what) as Sample)
      }
    }
  } finally {
    process.off("exit", stop)
    for (const { child } of running) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      child.disconnect()
      await once(child, "exit")
    }
  }
  return running.map(({ samples }) => samples)
}

const shuffled = <A>(items: ReadonlyArray<A>): Array<A> =>
  items.map((item) => ({ item, place: Math.random() })).sort((a, b) => a.place - b.place).map(({ item }) => item)

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const [low = NaN, high = NaN] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]
  return (low + high) / 2
}

/** The lines of the table that a row makes: one for each floor, one for the memory. */
const measure = async (
  kind: string,
  row: Row,
  directory: string,
  rounds: number
): Promise<Array<ReadonlyArray<string>>> => {
  await row.prepare?.(directory)
  const samples = await compare(kind, row, directory, rounds)
  const medians = samples.map((samples) => ({
    time: median(samples.map(({ time }) => time)),
    cpu: median(samples.map(({ cpu }) => cpu))
  }))
  const ours = medians.pop()
  assert(ours !== undefined)
  const { time } = ours
  const speed = row.unit === "MiB"
    ? `${thousands(row.amount / time * 1000)} MiB/s`
    : `${(time / row.amount * 1000).toFixed(2)} µs each`
  const shown = ({ cpu, time }: Sample) => `${milliseconds(time)} (${milliseconds(cpu)})`
  const lines = row.floors.flatMap((floor, index) => {
    const theirs = medians[index]
    assert(theirs !== undefined)
    const ratio = theirs.time / time
    const cpu = ours.cpu / theirs.cpu
    const speedLine = [
      row.work,
      floor.what,
      shown(theirs),
      `${shown(ours)}, ${speed}`,
      ratio.toFixed(2),
      ...(floor.atLeast === undefined ? ["", ""] : [`>= ${floor.atLeast}`, verdict(ratio >= floor.atLeast)])
    ]
    const more = (time - theirs.time) / row.amount * 1000
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
  const peak = await peakOf(work, directory)
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
    options: { rounds: { type: "string", default: "7" }, contestant: { type: "boolean", default: false } }
  })
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(1))
  if (values.contestant) return compete(...names)
  const rounds = Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds takes a number from 1 up")
  const all: Array<{ readonly kind: string; readonly row: Row }> = []
  for (const [kind, rows] of Object.entries(kinds)) all.push(...(await rows()).map((row) => ({ kind, row })))
  const known = new Set(all.flatMap(({ kind, row }) => [kind, row.name]))
  const unknown = names.filter((name) => !known.has(name))
  if (unknown.length > 0) throw new Error(`no row ${unknown.join(", ")}; there are ${[...known].join(", ")}`)
  const chosen = names.length === 0
    ? all
    : names.flatMap((chosen) => all.filter(({ kind, row }) => kind === chosen || row.name === chosen))

  const root = fs.mkdtempSync(path.join(process.env["BENCH_DIRECTORY"] ?? os.tmpdir(), "surfing-weights-bench-"))
  process.on("exit", () => fs.rmSync(root, { recursive: true, force: true }))

  // The AWS SDK says in each process that it will need a later Node some day.
  process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] = "true"
  // A server that grows with each save spends most of its time on memory that nobody has used before.
  const server = chosen.some(({ kind }) => kind === "s3") ? await startS3({ keepsDeleted: 1 }) : undefined
  if (server !== undefined) {
    // For the processes of the contestants.
    process.env["S3_TEST_ENDPOINT"] = server.endpoint
    process.env["S3_TEST_REGION"] = server.region
    process.env["S3_TEST_ACCESS_KEY_ID"] = server.accessKeyId
    process.env["S3_TEST_SECRET_ACCESS_KEY"] = server.secretAccessKey
  }
  const lines: Array<ReadonlyArray<string>> = [heading]
  try {
    for (const { kind, row } of chosen) {
      console.error(`measuring ${row.name} …`)
      const directory = path.join(root, row.name)
      fs.mkdirSync(directory)
      lines.push(...await measure(kind, row, directory, rounds))
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

await main()
