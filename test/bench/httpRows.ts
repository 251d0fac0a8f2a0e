/**
 * What is measured of the weight server: against `node:http` doing the same, and nginx where it is installed, each in a
 * process of its own, by a client in another.
 */
import assert from "node:assert/strict"
import * as fs from "node:fs"
import { hasNginx } from "../support/programs.js"
import * as content from "./content.js"
import { GiB, KiB, MiB } from "./content.js"
import { downloadAll, downloadLarge, memoryOf, type Server, startNginx, startServer, type Wanted } from "./http.js"
import type { Contestant, Opened, Row } from "./rows.js"

const nginx = (open: Contestant["open"]): ReadonlyArray<Contestant> => hasNginx ? [{ what: "nginx", open }] : []

const one = (server: Server): Opened => ({ run: (see) => downloadLarge(server, "object", see) })

const large: Row = {
  name: "http-large",
  work: "1 GiB of a file over HTTP",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  prepare: (directory) => content.writeFile(`${directory}/object`, GiB),
  ours: {
    what: "WeightServer",
    open: async (directory) => {
      const server = await startServer("ours", directory)
      const linux = process.platform === "linux"
      const before = linux ? memoryOf(server, "VmRSS") : 0
      return {
        ...one(server),
        // However often the object went out.
        after: () =>
          linux ? assert(memoryOf(server, "VmHWM") - before < 256 * MiB, "the server's memory grows") : undefined
      }
    }
  },
  floors: [
    {
      what: "node:http, createReadStream().pipe",
      atLeast: 0.8,
      open: async (directory) => one(await startServer("pipe", directory))
    },
    ...nginx(async (directory) => one(await startNginx(directory)))
  ]
}

const count = 8000
const size = 16 * KiB
const objects = Array.from({ length: count }, (): Wanted => ({ key: "object", length: size }))

const many = (server: Server, wanted: ReadonlyArray<Wanted> = objects): Opened => ({
  run: (see) => downloadAll(server, wanted, see)
})

const small: Row = {
  name: "http-small",
  work: "8,000 files of 16 KiB over HTTP, 32 connections",
  amount: count,
  unit: "requests",
  bytes: count * size,
  prepare: (directory) => Promise.resolve(fs.writeFileSync(`${directory}/object`, content.bytesAt(0, size))),
  ours: { what: "WeightServer", open: async (directory) => many(await startServer("ours", directory)) },
  floors: [
    {
      what: "node:http, reading the file",
      atLeast: 0.6,
      open: async (directory) => many(await startServer("bare", directory))
    },
    {
      what: "node:http, createReadStream().pipe",
      open: async (directory) => many(await startServer("pipe", directory))
    },
    ...nginx(async (directory) => many(await startNginx(directory)))
  ]
}

const rangeSize = 64 * KiB
const rangedSize = 64 * MiB
const ranges = Array.from({ length: 4000 }, (_, index): Wanted => ({
  key: "object",
  start: (index * 5_003_029) % (rangedSize - rangeSize),
  length: rangeSize
}))

const ranged: Row = {
  name: "http-ranges",
  work: "4,000 ranges of 64 KiB over HTTP, 32 connections",
  amount: ranges.length,
  unit: "requests",
  bytes: ranges.length * rangeSize,
  prepare: (directory) => content.writeFile(`${directory}/object`, rangedSize),
  ours: { what: "WeightServer", open: async (directory) => many(await startServer("ours", directory), ranges) },
  floors: [
    {
      what: "node:http, createReadStream().pipe",
      open: async (directory) => many(await startServer("pipe", directory), ranges)
    },
    ...nginx(async (directory) => many(await startNginx(directory), ranges))
  ]
}

export const httpRows: ReadonlyArray<Row> = [large, small, ranged]
