/**
 * The contract under Bun and Deno, which the first run installs.
 */
import { beforeAll, describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { build } from "esbuild"
import { execFile } from "node:child_process"
import * as path from "node:path"
import { promisify } from "node:util"
import { emulatorCannot } from "../support/contractSkips.js"
import { server } from "../support/s3Bucket.js"

const root = path.resolve(import.meta.dirname, "../..")

const expectShim = path.join(root, "test/runtimes/expect.ts")

const installed = (name: string) => path.join(root, "test/runtimes/node_modules/.bin", name)

const runtimes = [
  ["bun", installed("bun"), []],
  ["deno", installed("deno"), ["run", "--allow-all", "--quiet"]]
] as const

const skipped = server.kind === "emulator" ? Object.keys(emulatorCannot) : []

const run = promisify(execFile)

describe("files, encryption, HTTP and S3 keep their promises", () => {
  beforeAll(() => run("npx", ["tsx", "test/support/install.ts", "test/runtimes"], { cwd: root }))

  for (const [name, command, args] of runtimes) {
    it.scopedLive(
      `under ${name}`,
      () =>
        Effect.gen(function*() {
          // Below the packages, as the AWS SDK is loaded when it is needed.
          const file = path.join(root, `node_modules/.cache/surfing-weights/contract-${name}.mjs`)
          yield* Effect.promise(() =>
            build({
              entryPoints: [path.join(root, "test/runtimes/contract.ts")],
              bundle: true,
              format: "esm",
              platform: "node",
              tsconfig: path.join(root, "tsconfig.json"),
              outfile: file,
              external: ["@aws-sdk/*"],
              alias: { vitest: expectShim, "@effect/vitest": expectShim },
              banner: {
                js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);"
              }
            })
          )
          const env = { ...process.env, S3_SERVER: JSON.stringify(server), SKIPPED: JSON.stringify(skipped) }
          const { stdout } = yield* Effect.promise(() => run(command, [...args, file], { cwd: root, env }))
          expect(stdout.match(/^.* passed with \d{2,} rules$/gm)?.map((line) => line.split(" ")[0])).toEqual([
            "files",
            "encryption",
            "HTTP",
            "S3"
          ])
        }),
      // Five of them took four minutes on two busy cores.
      900_000
    )
  }
})
