/**
 * Starts the S3 server of a test run, once for all files. A test finds it with `inject("s3")`.
 */
import type { TestProject } from "vitest/node"
import { type S3Server, start } from "./s3Server.js"

declare module "vitest" {
  interface ProvidedContext {
    readonly s3: S3Server
  }
}

export default async (project: TestProject): Promise<() => Promise<void>> => {
  const { description, stop, ...s3 } = await start()
  console.log(`S3 tests use ${description}`)
  project.provide("s3", s3)
  return stop
}
