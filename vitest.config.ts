import { existsSync, readdirSync } from "node:fs"
import { availableParallelism } from "node:os"
import { basename } from "node:path"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

// Tests and examples import the package by its name, as its users do; here the name means the sources.
const src = fileURLToPath(new URL("./src", import.meta.url))
const publicFolders = ["", "/backends", "/wrappers", "/weights", "/server", "/testing"].filter((folder) =>
  existsSync(src + folder)
)
const modules = publicFolders.flatMap((folder) =>
  readdirSync(src + folder).filter((file) => file.endsWith(".ts")).map((file) => ({
    find: `surfing-weights/${basename(file, ".ts")}`,
    replacement: `${src}${folder}/${file}`
  }))
)

const report = process.env["TEST_REPORT"]

// A test waits much of its time, so three files run at a time on two cores, too.
const workers = Math.max(3, availableParallelism() - 1)

// Otherwise the largest files come first, and the run ends with one that takes minutes beside idle cores.
const long =
  /\/(runtimes|OpfsStorage\.browser|StorageEncryption|HttpStorage|S3Storage|examples|stacks)\.(all\.)?test\.ts$/

class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const sorted = await super.sort(files)
    const isLong = ({ moduleId }: TestSpecification) => long.test(moduleId)
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))]
  }
}

const slow = "test/**/*.all.test.ts"
// Each project can start an S3 server of its own: the emulator or, for the slow tests, Ceph where it is installed.
const globalSetup = ["test/support/s3GlobalSetup.ts"]

export default defineConfig({
  test: {
    // `npm test` runs the fast project, without a process for each file: importing the same modules again would take a third
    // of its time. `npm run test:all` runs both projects, a process for each file.
    projects: [
      { extends: true, test: { name: "fast", globalSetup, include: ["test/**/*.test.ts"], exclude: [slow] } },
      { extends: true, test: { name: "slow", globalSetup, include: [slow] } }
    ],
    // Otherwise the AWS SDK warns in each process that it will need a later Node.
    env: { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: "true" },
    // What Effect allocates dies young: with room for it, collecting takes a sixth less of the processor's time.
    poolOptions: { forks: { execArgv: ["--max-semi-space-size=64"] } },
    // As many to the end: to stop one that has nothing to do can break the run off (tinypool 1.1).
    minWorkers: workers,
    maxWorkers: workers,
    sequence: { sequencer: LongestFirst },
    // One line for each file, and every failure in full; what a test logs is shown only if it fails.
    reporters: report === undefined ? ["default"] : ["default", ["json", { outputFile: report }]],
    silent: "passed-only",
    slowTestThreshold: 30_000,
    setupFiles: ["test/support/equality.ts"],
    // These limits end a test that hangs. A test on a busy machine must not reach them.
    testTimeout: 300_000,
    hookTimeout: 300_000
  },
  resolve: {
    alias: [...modules, { find: "surfing-weights", replacement: `${src}/index.ts` }]
  }
})
