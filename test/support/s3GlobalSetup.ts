/**
 * Starts the S3 server of a test run when the first test file asks for it, once for all files of a project, and stops
 * it after the last. A run whose files ask for none starts none.
 */
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import type { TestProject } from "vitest/node"
import { type RunningS3Server, start } from "./s3Server.js"

declare module "vitest" {
  interface ProvidedContext {
    /** A URL that answers with the `S3Server` as JSON, once it is ready. */
    readonly s3: string
  }
}

export default async (project: TestProject): Promise<() => Promise<void>> => {
  let running: Promise<RunningS3Server> | undefined
  const startOnce = () =>
    running ??= start({ ceph: project.name === "slow" }).then((server) => {
      console.log(`S3 tests use ${server.description}`)
      return server
    })
  const desk = createServer((_, response) => {
    startOnce().then(
      (server) => response.end(JSON.stringify(server)),
      (error: unknown) => response.writeHead(500).end(String(error))
    )
  })
  await new Promise<void>((resolve) => desk.listen(0, "127.0.0.1", resolve))
  const { port } = desk.address() as AddressInfo
  project.provide("s3", `http://127.0.0.1:${port}`)
  return async () => {
    desk.close()
    desk.closeAllConnections()
    await (await running)?.stop()
  }
}
