/**
 * `npm run check`: every script of package.json named `check:…`, two at a time, each under its name. A failure does not keep
 * the rest from running; any failure fails the whole. What a step prints is shown only if it fails.
 */
import { spawn } from "node:child_process"
import manifest from "../../package.json" with { type: "json" }

const steps = Object.keys(manifest.scripts).filter((name) => name.startsWith("check:"))
const left = [...steps]
const failed: Array<string> = []

const run = (step: string): Promise<void> =>
  new Promise((resolve) => {
    const start = performance.now()
    const child = spawn(`npm run --silent ${step}`, { shell: true })
    let output = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += String(text)))
    child.on("close", (status) => {
      const seconds = ((performance.now() - start) / 1000).toFixed(1)
      console.log(status === 0 ? `${step} passed in ${seconds} s` : `${step} FAILED\n${output}`)
      if (status !== 0) failed.push(step)
      resolve()
    })
  })

const worker = async (): Promise<void> => {
  for (let step = left.shift(); step !== undefined; step = left.shift()) await run(step)
}

await Promise.all([worker(), worker()])

console.log(`${steps.length - failed.length} of ${steps.length} checks passed`)
if (failed.length > 0) {
  console.log(`failed: ${failed.join(", ")}`)
  process.exitCode = 1
}
