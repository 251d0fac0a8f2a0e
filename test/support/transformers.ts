/**
 * The calls by which transformers.js loads a file through its cache, in their order, as `loadResourceFile` of its
 * `src/utils/hub.js` makes them (3.x and 4.x).
 */
import type { TransformersCache } from "surfing-weights"

export interface Loaded {
  readonly bytes: Uint8Array
  readonly fromCache: boolean
  readonly progress: ReadonlyArray<TransformersCache.Progress>
}

export interface Options {
  /** With progress the body is read chunk by chunk, otherwise at once. */
  readonly withProgress?: boolean
  /** As Node.js does it for the files of the ONNX runtime: the answer goes unread into the cache, and is read from there. */
  readonly viaCache?: boolean
}

/** Looks under the local path, then under the address; what is not there is fetched and put. */
export const loadFile = async (
  cache: TransformersCache.TransformersCache,
  localPath: string,
  address: string,
  { viaCache = false, withProgress = false }: Options = {}
): Promise<Loaded> => {
  const progress: Array<TransformersCache.Progress> = []
  const note = (step: TransformersCache.Progress) => void progress.push(step)
  const read = async (response: Response) =>
    withProgress ? readInChunks(response, note) : new Uint8Array(await response.arrayBuffer())

  const found = await tryAll(cache, [localPath, address])
  if (found !== undefined && !viaCache) return { bytes: await read(found), fromCache: true, progress }
  if (found === undefined) {
    const response = await fetch(address)
    if (response.status !== 200) throw new Error(`${response.status} for ${address}`)
    const bytes = viaCache ? undefined : await read(response)
    // Somebody may have put it meanwhile.
    if ((await cache.match(address)) === undefined) {
      if (bytes === undefined) await cache.put(address, response, withProgress ? note : undefined)
      else {
        const headers = new Headers(response.headers)
        headers.set("content-length", String(bytes.byteLength))
        await cache.put(address, new Response(bytes.slice(), { headers }))
      }
    }
    if (bytes !== undefined) return { bytes, fromCache: false, progress }
  }
  const cached = await cache.match(address)
  if (cached === undefined) throw new Error(`${address} is not in the cache`)
  return { bytes: new Uint8Array(await cached.arrayBuffer()), fromCache: found !== undefined, progress }
}

/** The first that is there; one that cannot be looked up counts as not there. */
const tryAll = async (cache: TransformersCache.TransformersCache, names: ReadonlyArray<string>) => {
  for (const name of names) {
    const found = await cache.match(name).catch(() => undefined)
    if (found !== undefined) return found
  }
  return undefined
}

const readInChunks = async (response: Response, onProgress: (step: TransformersCache.Progress) => void) => {
  const total = Number(response.headers.get("content-length") ?? "0")
  const chunks: Array<Uint8Array> = []
  let loaded = 0
  const reader = response.body?.getReader()
  for (;;) {
    const next = await reader?.read()
    if (next === undefined || next.done) return new Uint8Array(Buffer.concat(chunks))
    const chunk = next.value as Uint8Array
    chunks.push(chunk)
    loaded += chunk.byteLength
    onProgress({ progress: (loaded / Math.max(total, loaded)) * 100, loaded, total })
  }
}
