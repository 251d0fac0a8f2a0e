import { existsSync, readdirSync } from "node:fs"
import { availableParallelism } from "node:os"
import { basename } from "node:path"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

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

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/s3GlobalSetup.ts"],
    // The AWS SDK says in each process that it will need a later Node some day.
    env: { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: "true" },
    // Much of what a test does is waiting, so that even two cores have work for two files.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    // A file a line and every failure in full; what a test logs is shown only where it fails.
    reporters: report === undefined ? ["default"] : ["default", ["json", { outputFile: report }]],
    silent: "passed-only",
    slowTestThreshold: 30_000,
    testTimeout: 30_000,
    hookTimeout: 120_000
  },
  resolve: {
    alias: [...modules, { find: "surfing-weights", replacement: `${src}/index.ts` }]
  }
})
