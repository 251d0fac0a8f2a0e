/**
 * Why a connection failed, by the codes of Node: in words, with what to do, and whether another attempt can help.
 */
import * as E from "../StorageError.js"

/** What went wrong, in words. */
export const describe = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  // A name with several addresses, none of which responds, fails with a list and without a message.
  if (cause instanceof AggregateError && cause.message === "") return cause.errors.map(describe).join("; ")
  const message = cause.message || cause.name
  // `fetch` says only that it failed, and why in the cause.
  return cause.cause instanceof Error ? `${message}: ${describe(cause.cause)}` : message
}

/** The failure of a connection. */
export const connectionError = (cause: unknown): E.StorageUnavailable =>
  new E.StorageUnavailable({ reason: `the connection failed: ${describe(cause)}`, cause })

/** What to do where a proxy of the environment refuses to work without credentials. */
export const proxyCredentials = "put them into HTTP_PROXY and HTTPS_PROXY, as http://user:password@host:port"

/**
 * The failure of a connection before there was a response: what then fails is often the address or the setup. What cannot
 * pass is marked as exhausted, so that it is not retried. `isNew` is whether the server has never responded.
 */
export const beforeResponse = <Err extends E.StorageError>(error: Err, isNew: boolean): Err | E.StorageUnavailable => {
  if (error._tag !== "StorageUnavailable" || error.cause === undefined) return error
  const root = rootOf(error.cause)
  const problem = problems.find(({ isIt }) => isIt(root)) ?? (isNew && isClosed(root) ? closed : undefined)
  if (problem === undefined) return error
  const { advice, canPass = false, what } = problem
  const attempts = canPass ? undefined : 1
  return new E.StorageUnavailable({
    reason: `${what} (${detailOf(root)}); ${advice}`,
    cause: error.cause,
    ...(attempts !== undefined && { attempts })
  })
}

/** Whether the name of the server does not exist. */
export const isNameMissing = ({ cause }: E.StorageError): boolean => codeOf(rootOf(cause)) === "ENOTFOUND"

/** Whether the server was waited for in vain. */
export const isTimeout = ({ _tag, cause }: E.StorageError): boolean =>
  _tag === "StorageTimeout" || hasCode("ETIMEDOUT", "UND_ERR_CONNECT_TIMEOUT")(rootOf(cause))

/** The innermost error with a code. */
const rootOf = (cause: unknown): unknown => {
  const inner = cause instanceof AggregateError
    ? cause.errors[0] as unknown
    : cause instanceof Error
    ? cause.cause
    : undefined
  return inner instanceof Error ? rootOf(inner) : cause
}

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : ""

interface Problem {
  readonly isIt: (root: unknown) => boolean
  readonly what: string
  readonly advice: string
  /** Whether another attempt may succeed. Default: false. */
  readonly canPass?: boolean
}

const hasCode = (...codes: ReadonlyArray<string>) => (root: unknown): boolean => codes.includes(codeOf(root))

const problems: ReadonlyArray<Problem> = [
  {
    isIt: hasCode("ENOTFOUND"),
    what: "the name of the server does not exist",
    advice: "correct the host name, or the region if it is part of the name",
    canPass: true
  },
  {
    isIt: hasCode("ECONNREFUSED", "ConnectionRefused"),
    what: "the server refused the connection",
    advice: "start the server, or correct host and port",
    canPass: true
  },
  {
    isIt: hasCode("CERT_HAS_EXPIRED"),
    what: "the certificate of the server has expired",
    advice: "renew it, or correct the clock of this machine"
  },
  {
    isIt: hasCode("CERT_NOT_YET_VALID"),
    what: "the certificate of the server is not valid yet",
    advice: "correct the clock of this machine, or get another certificate"
  },
  {
    isIt: hasCode("ERR_TLS_CERT_ALTNAME_INVALID", "HOSTNAME_MISMATCH"),
    what: "the certificate of the server is for another name",
    advice: "use a name that the certificate has, or get a certificate for this one"
  },
  {
    isIt: (root) => untrusted.test(codeOf(root)),
    what: "the certificate of the server is not trusted",
    advice:
      "correct the host, or set NODE_EXTRA_CA_CERTS to a file with the certificate of its authority before Node starts"
  },
  {
    // By `node:http`, EPROTO is all that it says of a handshake.
    isIt: hasCode("ERR_SSL_WRONG_VERSION_NUMBER", "ERR_SSL_PACKET_LENGTH_TOO_LONG", "EPROTO"),
    what: "the server does not speak TLS on this port, or no version of it that this machine does",
    advice: "use http:// or the port for https://"
  },
  {
    isIt: (root) => refusedHandshake.test(codeOf(root)),
    what: "the server and this machine do not agree on TLS",
    advice: "correct host and port, or the TLS settings of the server; it may require a client certificate"
  },
  {
    isIt: (root) => codeOf(root).startsWith("HPE_") || (root instanceof Error && root.name === "HTTPParserError"),
    what: "the response is not HTTP/1.1",
    advice: "use https:// if the server expects TLS on this port, or correct the port"
  },
  {
    // `undici` says no more of what a proxy answers to a `CONNECT`.
    isIt: hasCode("UND_ERR_ABORTED"),
    what: "the proxy opened no connection to the server",
    advice: "correct HTTPS_PROXY and the credentials in it, or name the server in NO_PROXY",
    canPass: true
  },
  {
    isIt: (root) => /^(UND_ERR_INVALID_ARG|ERR_INVALID_\w+|ERR_UNESCAPED_CHARACTERS)$/.test(codeOf(root)),
    what: "the request cannot be sent",
    advice: "correct the options of the storage"
  }
]

const isClosed = hasCode("ECONNRESET", "UND_ERR_SOCKET", "EPIPE")

const closed: Omit<Problem, "isIt"> = {
  what: "the server closed the connection without a response",
  advice: "use https:// if it expects TLS on this port, http:// if it does not, or correct the port",
  canPass: true
}

/** Codes of OpenSSL for a certificate (https://nodejs.org/api/tls.html#x509-certificate-error-codes). */
const untrusted =
  /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+|CERT_(?!HAS_EXPIRED|NOT_YET)\w+|CRL_\w+|INVALID_(CA|PURPOSE)|PATH_LENGTH_EXCEEDED|ERR_TLS_CERT_\w+)$/

/** Codes of OpenSSL for a handshake that cannot succeed; others are of a connection that broke. */
const refusedHandshake =
  /^ERR_SSL_.*(PROTOCOL_VERSION|_PROTOCOL|HANDSHAKE_FAILURE|CERTIFICATE\w*|UNKNOWN_CA|UNRECOGNIZED_NAME|ACCESS_DENIED|INSUFFICIENT_SECURITY|_AVAILABLE|TOO_SMALL|RENEGOTIATION_DISABLED|WRONG_SSL_VERSION)$/

/** The code where the message is one of OpenSSL, with addresses and file names; else the message. */
const detailOf = (root: unknown): string => {
  const code = codeOf(root)
  if (code === "EPROTO" || code.startsWith("ERR_SSL_")) return code
  // Node adds advice to some.
  const [message = ""] = describe(root).split("; ")
  return message.length > 200 ? `${message.slice(0, 200)}…` : message
}
