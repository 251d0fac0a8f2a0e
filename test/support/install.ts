/**
 * `tsx install.ts <folder>`: installs the packages that a single command needs, from the lock file of the folder,
 * unless they are installed already.
 */
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const [folder = "."] = process.argv.slice(2)
const lock = readFileSync(join(folder, "package-lock.json"), "utf8")
const mark = join(folder, "node_modules/.installed-lock.json")

if (!existsSync(mark) || readFileSync(mark, "utf8") !== lock) {
  console.log(`Installing the packages of ${folder}`)
  const { status } = spawnSync("npm ci --no-audit --no-fund --loglevel=error", {
    cwd: folder,
    shell: true,
    stdio: "inherit"
  })
  if (status !== 0) process.exit(1)
  writeFileSync(mark, lock)
}
