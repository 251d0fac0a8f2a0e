/**
 * What is measured of the weight server: against `node:http` doing the same, and nginx where it is installed, each in a
 * process of its own, by one client.
 */
import assert from "node:assert/strict"
import * as content from "./content.js"
import { GiB, KiB, MiB } from "./content.js"
import { download, downloadAll, hasNginx, memoryOf, type Server, start, startNginx } from "./http.js"
import type { Contestant, Row } from "./rows.js"

const onNginx = async (
  directory: string,
  contestant: (server: Server) => Contestant
): Promise<ReadonlyArray<Contestant>> => hasNginx ? [contestant(await startNginx(directory))] : []

const large: Row = {
  name: "http-large",
  work: "1 GiB of a file over HTTP",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  prepare: async (directory) => {
    await content.writeFile(`${directory}/object`, GiB)
    const downloading = (what: string) => (server: Server): Contestant => ({
      what,
      run: (see) => download(server, "object", see)
    })
    const ours = await start("ours", directory)
    const linux = process.platform === "linux"
    const before = linux ? memoryOf(ours, "VmRSS") : 0
    return {
      ours: {
        ...downloading("WeightServer")(ours),
        // However often the object went out.
        after: () =>
          linux ? assert(memoryOf(ours, "VmHWM") - before < 256 * MiB, "the server's memory grows") : undefined
      },
      floors: [
        { ...downloading("node:http, createReadStream().pipe")(await start("pipe", directory)), atLeast: 0.8 },
        ...await onNginx(directory, downloading("nginx"))
      ]
    }
  }
}

const count = 8000

const small: Row = {
  name: "http-small",
  work: "8,000 files of 16 KiB over HTTP, 32 connections",
  amount: count,
  unit: "requests",
  bytes: count * 16 * KiB,
  prepare: async (directory) => {
    const bytes = content.bytesAt(0, 16 * KiB)
    await content.writeFile(`${directory}/object`, 16 * KiB)
    const keys = new Array<string>(count).fill("object")
    const downloading = (what: string) => (server: Server): Contestant => ({
      what,
      run: (see) =>
        downloadAll(server, keys, (got, at) => {
          assert(at + got.length <= bytes.length)
          see(got, at)
        })
    })
    return {
      ours: downloading("WeightServer")(await start("ours", directory)),
      floors: [
        { ...downloading("node:http, reading the file")(await start("bare", directory)), atLeast: 0.6 },
        downloading("node:http, createReadStream().pipe")(await start("pipe", directory)),
        ...await onNginx(directory, downloading("nginx"))
      ]
    }
  }
}

export const httpRows: ReadonlyArray<Row> = [large, small]
