/**
 * `npm run bench`: how fast this library is, against others doing the same work in the same run: `node:fs` on the same
 * files from the page cache, the AWS SDK and OpenDAL on the same S3 server (see `test/support/s3Server.ts`), `node:http`
 * and nginx on the same files. `npm run bench -- load s3-load --rounds 15` measures some rows only, or for longer; `files`,
 * `streams` and the other `kinds` are all of a kind, but for rows that take long, which run only by their names.
 * `--json FILE` also writes what was measured to a file, and `--compare FILE` shows what has changed since.
 *
 * Each contestant has a process of its own, so that none collects another's garbage, and in each round they take their
 * turns in another order, since what the one before has left of the disk's and the memory's work is paid by the next.
 * Beside its time stands the processor time that a run took of its process, in which the server's is not, or
 * of an app's own server, that of the server. The files are
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
import * as content from "./content.js"
import { peakOf } from "./peakMemory.js"
import { changes, linesOf, machine, measured, print, read, type Result, type Sample, write } from "./report.js"
import type { Contestant, Opened, Row } from "./rows.js"

/** The rows of each kind, loaded where they are needed: what a process does not measure, it does not hold. */
const kinds: Record<string, () => Promise<ReadonlyArray<Row>>> = {
  files: async () => (await import("./rows.js")).rows,
  streams: async () => (await import("./streamRows.js")).streamRows,
  outsider: async () => (await import("./outsiderRows.js")).outsiderRows,
  "small-things": async () => (await import("./smallRows.js")).smallRows,
  wrappers: async () => (await import("./wrapperRows.js")).wrapperRows,
  weights: async () => [
    ...(await import("./weightRows.js")).weightRows,
    ...(await import("./chunkRows.js")).chunkRows
  ],
  http: async () => (await import("./httpRows.js")).httpRows,
  s3: async () => [
    ...(await import("./s3Rows.js")).s3Rows,
    ...(await import("./s3FileRows.js")).s3FileRows
  ]
}

/** How long each contestant runs before it is measured, in milliseconds. */
const warmUp = 1000

// The process of a contestant

/**
 * Runs it once. What it left of garbage stays for its next run, as in an app: to force a collection before each run would
 * make V8 compile anew what it had optimized, and leave it with so low a limit that it would spend most of its time in
 * collections.
 */
const sample = async (
  { after, cpu = ownCpu, run }: Opened,
  { bytes, check = content.check }: Row,
  first: boolean
): Promise<Sample> => {
  let seen = 0
  const cpuBefore = cpu()
  const start = performance.now()
  await run((chunk, position) => {
    seen += chunk.length
    if (first) check(chunk, position)
  })
  const time = performance.now() - start
  const cpuTime = cpu() - cpuBefore
  assert.equal(seen, bytes, "another number of bytes than expected")
  await after?.(first)
  return { time, cpu: cpuTime }
}

const ownCpu = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

/** Runs until V8 has compiled it, checked byte by byte; then once for each message from its parent, whom it answers. */
const compete = async (kind = "", name = "", index = "", directory = ""): Promise<void> => {
  process.on("disconnect", () => process.exit())
  const row = (await kinds[kind]?.())?.find((row) => row.name === name)
  assert(row !== undefined)
  const opened = await contestantsOf(row)[Number(index)]?.open(directory)
  assert(opened !== undefined)
  let time = 0
  while (time < warmUp) time += (await sample(opened, row, true)).time
  process.send?.("ready")
  for await (const _ of on(process, "message")) process.send?.(await sample(opened, row, false))
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

/** What a row shows. */
const measure = async (kind: string, row: Row, directory: string, rounds: number): Promise<Result> => {
  await row.prepare?.(directory)
  const samples = await compare(kind, row, directory, rounds)
  const { memory } = row
  const peak = memory === undefined ? 0 : await peakOf(memory.work, directory)
  const ours = measured(row.ours.what, samples.at(-1) ?? [])
  return {
    kind,
    row: row.name,
    work: row.work,
    amount: row.amount,
    unit: row.unit,
    ours,
    floors: row.floors.map(({ open: _, ...floor }, index) => {
      const theirs = measured(floor.what, samples[index] ?? [])
      return { ...floor, ...theirs, ratio: theirs.time / ours.time, cpuRatio: ours.cpu / theirs.cpu }
    }),
    ...(row.microsecondsAtMost !== undefined && { microsecondsAtMost: row.microsecondsAtMost }),
    ...(memory !== undefined && { memory: { ...memory, peak } })
  }
}

interface Chosen {
  readonly kind: string
  readonly row: Row
}

/** The rows of these names and kinds, or all; those that take long only by their names. */
const choose = async (names: ReadonlyArray<string>): Promise<ReadonlyArray<Chosen>> => {
  const all: Array<Chosen> = []
  for (const [kind, rows] of Object.entries(kinds)) all.push(...(await rows()).map((row) => ({ kind, row })))
  const known = new Set(all.flatMap(({ kind, row }) => [kind, row.name]))
  const unknown = names.filter((name) => !known.has(name))
  if (unknown.length > 0) throw new Error(`no row ${unknown.join(", ")}; there are ${[...known].join(", ")}`)
  const short = all.filter(({ row }) => row.onlyNamed !== true)
  if (names.length === 0) return short
  return names.flatMap((name) => [
    ...short.filter(({ kind }) => kind === name),
    ...all.filter(({ row }) => row.name === name)
  ])
}

const main = async (): Promise<void> => {
  const { positionals: names, values } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: "7" },
      json: { type: "string" },
      compare: { type: "string" },
      contestant: { type: "boolean", default: false }
    }
  })
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(1))
  if (values.contestant) return compete(...names)
  const rounds = Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds takes a number from 1 up")
  const earlier = values.compare === undefined ? undefined : read(values.compare)
  const chosen = await choose(names)

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
  const results: Array<Result> = []
  try {
    for (const { kind, row } of chosen) {
      console.error(`measuring ${row.name} …`)
      const directory = path.join(root, row.name)
      fs.mkdirSync(directory)
      results.push(await measure(kind, row, directory, rounds))
      fs.rmSync(directory, { recursive: true })
    }
  } finally {
    await server?.stop()
    const run = { ...machine(), rounds, ...(server !== undefined && { s3: server.description }), results }
    print(linesOf(run))
    if (earlier !== undefined) print(changes(earlier, run))
    if (values.json !== undefined) write(values.json, run)
  }
}

await main()
