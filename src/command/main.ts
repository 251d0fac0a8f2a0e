#!/usr/bin/env node
/**
 * The command-line tool `surfing-weights`. What a command needs is loaded when it runs; the version needs nothing.
 */
import { readFileSync } from "node:fs"

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  readonly version: string
}

const args = process.argv.slice(2)

if (args[0] === "--version") {
  process.stdout.write(`${manifest.version}\n`)
} else {
  const { run } = await import("./run.js")
  run(args, manifest.version)
}
