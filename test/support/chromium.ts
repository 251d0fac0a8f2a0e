/**
 * A real browser for tests, where Chromium is installed.
 */
import { Effect } from "effect"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { chromium } from "playwright-core"

/** The path of Chromium; `undefined` where it is not installed. */
export const executable = [
  ...(process.env["PATH"] ?? "").split(":").map((folder) => join(folder, "chromium")),
  "/usr/bin/chromium"
].find(existsSync)

/** A browser with a profile of its own, until the scope closes. */
export const browser = Effect.acquireRelease(
  Effect.promise(async () => {
    const folder = mkdtempSync(join(tmpdir(), "surfing-weights-chromium-"))
    const context = await chromium.launchPersistentContext(folder, {
      ...(executable !== undefined && { executablePath: executable }),
      headless: true,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync"
      ]
    })
    return { context, folder }
  }),
  ({ context, folder }) =>
    Effect.promise(async () => {
      await context.close()
      rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
    })
)
