/**
 * What the failures of a model hub mean, which it tells apart by `x-error-code`.
 */
import * as E from "../../StorageError.js"
import type { Reply } from "../http/request.js"
import { failureOf as failureOfStatus } from "../http/responses.js"

const repositoryMissing =
  "the hub has no such model, or shows it only with a token that may read it; correct repo, or give a token"

/** The failure of a response of the hub itself. */
export const failureOf = (reply: Reply): E.StorageError => {
  const { headers, status } = reply
  const suffix = ` (HTTP ${status})`
  switch (headers["x-error-code"]) {
    case "GatedRepo":
      return new E.AccessDenied({ reason: `the model is gated; accept its conditions on the page of the hub${suffix}` })
    case "RepoNotFound":
      return status === 401
        ? new E.AccessDenied({ reason: repositoryMissing + suffix })
        : new E.StorageNotFound({ reason: repositoryMissing + suffix })
    case "RevisionNotFound":
      return new E.StorageNotFound({
        reason:
          `the hub has no such revision of the model, or not any more; correct it, or build the storage again${suffix}`
      })
    case "EntryNotFound":
      return new E.ObjectNotFound()
  }
  return status === 401
    ? new E.AccessDenied({ reason: repositoryMissing + suffix })
    : status === 404 || status === 410
    ? new E.StorageNotFound({ reason: `there is no model hub at this endpoint${suffix}` })
    : failureOfStatus(reply, { about: "storage", isStatic: true })
}

/** The failure of a response of the host to which the hub redirects. */
export const failureOfHost = (reply: Reply): E.StorageError =>
  isRefusal(reply.status)
    ? new E.AccessDenied({
      reason:
        `the host of the files refuses the address that the hub gave (HTTP ${reply.status}); check this machine's clock`
    })
    : failureOfStatus(reply, { about: "object", isStatic: true })

/** How hosts answer for an address whose signature has expired. */
export const isRefusal = (status: number): boolean => status === 400 || status === 401 || status === 403
