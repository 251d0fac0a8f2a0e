/**
 * What clients of a model hub are told when something is missing. They tell the cases apart by `x-error-code`.
 */
import * as Data from "effect/Data"
import { empty, json } from "../responses.js"
import type { Request, Response } from "../server.js"

/** What is missing, in the words of the protocol. */
export class Missing extends Data.TaggedError("Missing")<{
  readonly code: "RepoNotFound" | "RevisionNotFound" | "EntryNotFound"
}> {}

const messages: Readonly<Record<Missing["code"], string>> = {
  RepoNotFound: "there is no such model",
  RevisionNotFound: "there is no such revision; use main, or the current commit of the model",
  EntryNotFound: "the model has no such file"
}

export const missing = ({ method }: Request, { code }: Missing): Response => {
  const headers = { "x-error-code": code, "x-error-message": messages[code] }
  const text = JSON.stringify({ error: messages[code] })
  return method === "HEAD"
    ? empty(404, { ...headers, "content-length": String(text.length) })
    : json(text, 404, headers)
}
