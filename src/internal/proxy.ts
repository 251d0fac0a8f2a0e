/**
 * The proxy that the environment names, as the connections of `undici` for it: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or
 * the same in lower case, which count first. Requests over `http:` are forwarded, those over `https:` go through a tunnel.
 */
import * as Either from "effect/Either"
import { EnvHttpProxyAgent } from "undici"
import { InvalidOptions } from "../StorageError.js"

type Options = Omit<EnvHttpProxyAgent.Options, "httpProxy" | "httpsProxy">

/** Connections through the proxy of the environment, and past it where `NO_PROXY` says so; `undefined` without a proxy. */
export const proxied = (
  module: string,
  options: Options = {}
): Either.Either<EnvHttpProxyAgent | undefined, InvalidOptions> =>
  Either.gen(function*() {
    const httpProxy = yield* proxyUrl(module, "http_proxy")
    const httpsProxy = yield* proxyUrl(module, "https_proxy")
    return httpProxy === "" && httpsProxy === ""
      ? undefined
      // Many proxies allow a tunnel to the ports of TLS alone.
      : new EnvHttpProxyAgent({ proxyTunnel: false, ...options, httpProxy, httpsProxy })
  })

let shared: { readonly environment: string; readonly agent: EnvHttpProxyAgent | undefined } | undefined

/** The same for the storages of this process that have no connections of their own. It is not closed; idle, it keeps no process. */
export const sharedProxy = (): Either.Either<EnvHttpProxyAgent | undefined, InvalidOptions> => {
  const environment = JSON.stringify(names.map((name) => process.env[name]))
  if (shared?.environment === environment) return Either.right(shared.agent)
  return Either.map(proxied("HttpStorage"), (agent) => {
    shared = { environment, agent }
    return agent
  })
}

/** The names of the variables. */
export const names = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"]

const proxyUrl = (module: string, name: string): Either.Either<string, InvalidOptions> => {
  const [variable, text] = [name, name.toUpperCase()]
    .map((variable) => [variable, process.env[variable]?.trim() ?? ""] as const)
    .find(([, text]) => text !== "") ?? [name, ""]
  if (text === "") return Either.right("")
  const url = text.includes("://") ? text : `http://${text}`
  return URL.canParse(url) && /^(https?|socks5?):$/.test(new URL(url).protocol)
    ? Either.right(url)
    // It may hold a password.
    : Either.left(
      new InvalidOptions({
        module,
        option: variable,
        reason: `${variable} must be the URL of a proxy, such as http://proxy:3128`
      })
    )
}
