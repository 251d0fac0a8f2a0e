/**
 * What the responses of S3 mean.
 */
import { describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import { expect } from "vitest"
import { isEtag, toEtag } from "../../../src/backends/s3/dialect.js"
import { ErrorResponse, failureOf as failureOfResponse, toInfo } from "../../../src/backends/s3/responses.js"
import * as E from "../../../src/StorageError.js"

interface Details {
  readonly message?: string
  /** Elements beside code and message. */
  readonly more?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** The failure behind a response; without a code its body is empty, as that of a `HEAD` is. */
const failureOf = (status: number, code?: string, { headers = {}, message = "It says no.", more = "" }: Details = {}) =>
  failureOfResponse(
    ErrorResponse.from(
      { status, headers: { "x-amz-request-id": "TX42", ...headers } },
      code === undefined
        ? ""
        : `<?xml version="1.0"?>\n<Error><Code>${code}</Code><Message>${message}</Message>${more}</Error>`
    ),
    "weights"
  )

/** Statuses and codes, and what they mean: the failure, and what its message tells to do. */
const table: ReadonlyArray<
  readonly [status: number, code: string | undefined, tag: ReturnType<typeof failureOf>["_tag"], advice: string]
> = [
  [500, "InternalError", "StorageUnavailable", "not available now"],
  [500, undefined, "StorageUnavailable", "not available now"],
  [502, undefined, "StorageUnavailable", "not available now"],
  [503, "SlowDown", "StorageUnavailable", "not available now"],
  [503, "ServiceUnavailable", "StorageUnavailable", "not available now"],
  [503, "XMinioServerNotInitialized", "StorageUnavailable", "not available now"],
  [503, undefined, "StorageUnavailable", "not available now"],
  [504, undefined, "StorageUnavailable", "not available now"],
  [599, undefined, "StorageUnavailable", "not available now"],
  [408, undefined, "StorageUnavailable", "not available now"],
  [429, undefined, "StorageUnavailable", "not available now"],
  [429, "TooManyRequests", "StorageUnavailable", "not available now"],
  [400, "RequestTimeout", "StorageUnavailable", "not available now"],
  [400, "Throttling", "StorageUnavailable", "not available now"],
  [400, "ThrottlingException", "StorageUnavailable", "not available now"],
  [400, "RequestLimitExceeded", "StorageUnavailable", "not available now"],
  [409, "OperationAborted", "StorageUnavailable", "not available now"],
  [409, "ConditionalRequestConflict", "StorageUnavailable", "not available now"],
  [509, "BandwidthLimitExceeded", "StorageUnavailable", "not available now"],
  // What went wrong after the server had answered 200.
  [200, "InternalError", "StorageUnavailable", "not available now"],
  [200, "SlowDown", "StorageUnavailable", "not available now"],
  [403, "RequestTimeTooSkewed", "StorageUnavailable", "clocks"],

  [401, undefined, "AccessDenied", "allow it in the policy"],
  [403, undefined, "AccessDenied", "allow it in the policy"],
  [403, "AccessDenied", "AccessDenied", "allow it in the policy"],
  [403, "InvalidAccessKeyId", "AccessDenied", "correct the credentials"],
  [403, "SignatureDoesNotMatch", "AccessDenied", "secret access key"],
  [403, "AccountProblem", "AccessDenied", "account"],
  [403, "InvalidPayer", "AccessDenied", "pay"],
  [403, "AllAccessDisabled", "AccessDenied", "disabled"],
  [400, "ExpiredToken", "AccessDenied", "get new ones"],
  [400, "TokenRefreshRequired", "AccessDenied", "get new ones"],
  [400, "InvalidToken", "AccessDenied", "session token"],

  [404, "NoSuchBucket", "StorageNotFound", "create it, or correct bucket or endpoint"],
  [301, "PermanentRedirect", "StorageNotFound", "set the region"],
  [400, "IllegalLocationConstraintException", "StorageNotFound", "set the region"],

  [400, "EntityTooLarge", "StorageFull", "larger than the server allows"],
  [403, "QuotaExceeded", "StorageFull", "no space"],
  [507, undefined, "StorageFull", "no space"],
  [507, "XMinioStorageFull", "StorageFull", "no space"],

  [403, "InvalidObjectState", "UnsupportedOperation", "restore it"],
  [409, "ObjectParentIsFile", "UnsupportedOperation", "remove or rename one of them first"],
  [409, "ExistingObjectIsDirectory", "UnsupportedOperation", "remove or rename one of them first"],
  [400, "XMinioParentIsObject", "UnsupportedOperation", "remove or rename one of them first"],
  [501, "NotImplemented", "UnsupportedOperation", "does not support this"],
  [501, undefined, "UnsupportedOperation", "does not support this"],

  [400, undefined, "UnexpectedStorageError", "refused"],
  [400, "InvalidArgument", "UnexpectedStorageError", "refused the request: It says no."],
  [400, "MalformedXML", "UnexpectedStorageError", "refused the request: It says no."],
  [405, "MethodNotAllowed", "UnexpectedStorageError", "refused the request: It says no."],
  [418, "ATeapot", "UnexpectedStorageError", "refused the request: It says no."]
]

describe("an error response", () => {
  for (const [status, code, tag, advice] of table) {
    it(`is ${tag} for ${code ?? "no code"} with ${status}`, () => {
      const failure = failureOf(status, code)
      expect(failure._tag).toBe(tag)
      expect(E.isRetryable(failure)).toBe(tag === "StorageUnavailable")
      expect(failure.message).toContain(advice)
      expect(failure.message).toContain("request TX42")
      expect(failure.message).toContain(`HTTP ${status}`)
      if (code !== undefined) expect(failure.message).toContain(code)
    })
  }

  it("without a body is classified by its status", () => {
    const codes = [403, 404, 412, 416, 304, 503, 429].map((status) =>
      ErrorResponse.from({ status, headers: {} }, "").code
    )
    expect(codes).toEqual([
      "AccessDenied",
      "NoSuchKey",
      "PreconditionFailed",
      "InvalidRange",
      "NotModified",
      "SlowDown",
      "TooManyRequests"
    ])
    expect(ErrorResponse.from({ status: 499, headers: {} }, "").code).toBe("HTTP 499")
    expect(ErrorResponse.from({ status: 502, headers: {} }, "<html><body>Bad Gateway</body></html>").code).toBe(
      "HTTP 502"
    )
  })

  it("has the code and the message of its body, and the request id of the header or the body", () => {
    const body = "<Error><Code>NoSuchKey</Code><Message>There&#39;s none</Message><RequestId>body</RequestId></Error>"
    expect(ErrorResponse.from({ status: 404, headers: {} }, body)).toMatchObject({
      status: 404,
      code: "NoSuchKey",
      message: "There's none",
      requestId: "body"
    })
    expect(ErrorResponse.from({ status: 404, headers: { "x-amz-request-id": "header" } }, body).requestId).toBe(
      "header"
    )
    expect(ErrorResponse.from({ status: 404, headers: {} }, "").requestId).toBeUndefined()
  })

  it("names no request if it has no id", () => {
    const failure = failureOfResponse(ErrorResponse.from({ status: 500, headers: {} }, ""), "weights")
    expect(failure.message).toBe("the server is not available now (HTTP 500)")
  })

  it("names the bucket that does not exist", () => {
    expect(failureOf(404, "NoSuchBucket").message).toContain("the bucket \"weights\" does not exist")
  })

  it("names the region to set, from the header or the body", () => {
    const region = { headers: { "x-amz-bucket-region": "eu-central-1" } }
    const told = [
      failureOf(301, "PermanentRedirect", region),
      failureOf(301, undefined, region),
      failureOf(307, "TemporaryRedirect", region),
      failureOf(400, "AuthorizationHeaderMalformed", { more: "<Region>eu-central-1</Region>" })
    ]
    for (const failure of told) {
      expect(failure._tag).toBe("StorageNotFound")
      expect(failure.message).toContain("\"weights\" is not in this region; set region: \"eu-central-1\"")
      expect(failure.message).toContain("request TX42")
    }
  })

  it("is not about the region merely because it names one", () => {
    const region = { headers: { "x-amz-bucket-region": "eu-central-1" } }
    expect(failureOf(403, "AccessDenied", region)._tag).toBe("AccessDenied")
    expect(failureOf(403, undefined, region)._tag).toBe("AccessDenied")
    expect(failureOf(404, "NoSuchBucket", region).message).toContain("create it")
    expect(failureOf(503, "SlowDown", region)._tag).toBe("StorageUnavailable")
  })

  it("has the message of the server if the header with the credentials is malformed for another reason", () => {
    const failure = failureOf(400, "AuthorizationHeaderMalformed", { message: "the Credential is mal-formed" })
    expect(failure.message).toContain("the Credential is mal-formed")
    expect(E.isRetryable(failure)).toBe(false)
  })
})

describe("the wait that a server requests", () => {
  const waitOf = (retryAfter?: string) => {
    const failure = failureOf(
      503,
      "SlowDown",
      retryAfter === undefined ? {} : { headers: { "retry-after": retryAfter } }
    )
    const wait = failure._tag === "StorageUnavailable" ? failure.retryAfter : undefined
    return wait && Duration.toMillis(wait)
  }

  it("is parsed from seconds", () => {
    expect(waitOf("0")).toBe(0)
    expect(waitOf("1")).toBe(1000)
    expect(waitOf(" 120 ")).toBe(120_000)
    expect(waitOf("0.5")).toBe(500)
  })

  it("is parsed from a date, which may have passed", () => {
    const wait = waitOf(new Date(Date.now() + 60_000).toUTCString())
    expect(wait).toBeGreaterThan(57_000)
    expect(wait).toBeLessThanOrEqual(60_000)
    expect(waitOf("Wed, 21 Oct 2015 07:28:00 GMT")).toBe(0)
  })

  it("is left to the policy if it is missing or invalid", () => {
    expect(waitOf()).toBeUndefined()
    expect(waitOf("soon")).toBeUndefined()
    expect(waitOf("Infinity")).toBeUndefined()
    expect(waitOf("NaN")).toBeUndefined()
  })

  it("is never negative", () => {
    expect(waitOf("-5")).toBe(0)
  })

  it("is in the message", () => {
    expect(failureOf(429, undefined, { headers: { "retry-after": "7" } }).message).toContain("(asked to wait 7s)")
  })

  it("is respected with any temporary status", () => {
    for (
      const [status, code] of [[408, undefined], [429, undefined], [500, "InternalError"], [503, undefined]] as const
    ) {
      expect(failureOf(status, code, { headers: { "retry-after": "2" } })).toMatchObject({
        _tag: "StorageUnavailable",
        retryAfter: Duration.seconds(2)
      })
    }
  })
})

describe("the headers of an object", () => {
  it("have its time and its etag, which is returned without quotes", () => {
    const headers = { etag: "\"abc-2\"", "last-modified": "Wed, 21 Oct 2015 07:28:00 GMT" }
    expect(toInfo("a", headers, 5)).toEqual({
      key: "a",
      size: 5,
      lastModified: new Date("2015-10-21T07:28:00Z"),
      etag: "abc-2"
    })
  })

  it("have a checksum of all the bytes, but not a checksum of checksums", () => {
    const checksumOf = (headers: Record<string, string>) => toInfo("a", headers, 5).checksum
    expect(checksumOf({ "x-amz-checksum-crc32c": "4waSgw==" })).toEqual({ algorithm: "CRC32C", value: "4waSgw==" })
    expect(checksumOf({ "x-amz-checksum-crc64nvme": "rosUhgp5mIg=" }))
      .toEqual({ algorithm: "CRC64NVME", value: "rosUhgp5mIg=" })
    expect(checksumOf({ "x-amz-checksum-sha256": "ungWv48B+pc=" })).toEqual({
      algorithm: "SHA256",
      value: "ungWv48B+pc="
    })
    expect(checksumOf({ "x-amz-checksum-sha256": "ungWv48B+pc=-2" })).toBeUndefined()
    expect(checksumOf({ "x-amz-checksum-crc32c": "4waSgw==", "x-amz-checksum-type": "COMPOSITE" })).toBeUndefined()
    expect(checksumOf({ "x-amz-checksum-crc32c": "4waSgw==", "x-amz-checksum-type": "composite" })).toBeUndefined()
    expect(checksumOf({ "x-amz-checksum-crc32c": "4waSgw==", "x-amz-checksum-type": "FULL_OBJECT" })).toBeDefined()
    // Without a type or a number, the etag says that the object has parts.
    const inParts = { "x-amz-checksum-sha256": "ungWv48B+pc=", etag: "\"d41d8cd98f00b204e9800998ecf8427e-2\"" }
    expect(checksumOf(inParts)).toBeUndefined()
    expect(checksumOf({ ...inParts, "x-amz-checksum-type": "FULL_OBJECT" })).toBeDefined()
    expect(checksumOf({ "x-amz-checksum-crc32": "y/Q5Jg==" })).toBeUndefined()
  })

  it("have the time of the response if there is no other", () => {
    expect(toInfo("a", { date: "Wed, 21 Oct 2015 07:28:00 GMT" }, 5).lastModified)
      .toEqual(new Date("2015-10-21T07:28:00Z"))
  })

  it("have etags that are quoted, weak, or neither", () => {
    expect(toEtag("\"abc\"")).toBe("abc")
    expect(toEtag("W/\"abc\"")).toBe("abc")
    expect(toEtag("abc")).toBe("abc")
    expect(toEtag("\"\"")).toBe("")
    expect(toEtag("\"a\"b\"")).toBe("a\"b")
    expect(toEtag("")).toBe("")
  })

  it("can contain only some strings as etags", () => {
    for (const etag of ["abc", "d41d8cd98f00b204e9800998ecf8427e-12", "*", "!#~"]) expect(isEtag(etag), etag).toBe(true)
    for (const etag of ["", "a b", "a\"b", "é", "a\n", "\u007f", "😀"]) expect(isEtag(etag), etag).toBe(false)
  })
})
