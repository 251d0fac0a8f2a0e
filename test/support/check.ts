/**
 * `npm run check`: every script of package.json named `check:…`, one after the other, each under its name. A failure
 * does not keep the rest from running; any failure fails the whole. What a step prints is shown only where it fails.
 */
import { spawnSync } from "node:child_process"
import manifest from "../../package.json" with { type: "json" }

const steps = Object.keys(manifest.scripts).filter((name) => name.startsWith("check:"))
const failed = steps.filter((step) => {
  const start = performance.now()
  const { status, stderr, stdout } = spawnSync(`npm run --silent ${step}`, { shell: true, encoding: "utf8" })
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  console.log(status === 0 ? `${step} passed in ${seconds} s` : `${step} FAILED\n${stdout}${stderr}`)
  return status !== 0
})

console.log(`${steps.length - failed.length} of ${steps.length} checks passed`)
if (failed.length > 0) {
  console.log(`failed: ${failed.join(", ")}`)
  process.exitCode = 1
}
