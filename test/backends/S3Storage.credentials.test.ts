/**
 * Who asks a bucket: every way to give credentials, as far as one machine goes, what a person is told where they do not
 * work, and that none of it ever shows a secret. The server is the real one of the run; what hands out credentials
 * elsewhere (container, instance, single sign-on, token service) is played by a server on loopback.
 */
import { AbortMultipartUploadCommand, HeadBucketCommand, PutBucketPolicyCommand } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import {
  Array as Arr,
  Cause,
  Config,
  ConfigError,
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Exit,
  Layer,
  Logger,
  Redacted,
  Schedule,
  Schema,
  Scope,
  Stream
} from "effect"
import { createHash, randomUUID } from "node:crypto"
import { mkdirSync, writeFileSync } from "node:fs"
import * as http from "node:http"
import { join } from "node:path"
import { inspect } from "node:util"
import { MemoryStorage, S3Storage, Storage, StorageError } from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import * as FaultProxy from "../support/faultProxy.js"
import { listen } from "../support/loopback.js"
import { makeBucket, options, sdk, server } from "../support/s3Bucket.js"
import { client } from "../support/s3Server.js"
import { recordingTracer } from "../support/spans.js"

// What fails does so for good here; nothing is gained by waiting.
const retry = Schedule.recurs(1)

const { credentials: right, endpoint, region } = options

const token = "session-t0ken/+="
const wrongSecret = "not-the-secret/+="

const secrets = [
  token,
  wrongSecret,
  server.secretAccessKey,
  ...(server.other === undefined ? [] : [server.other.secretAccessKey])
]

/** A failure as it may come before people or into logs. */
const shown = (failure: StorageError.StorageError): string =>
  [
    failure.message,
    String(failure),
    failure.stack,
    inspect(failure, { depth: 10, showHidden: true }),
    Schema.encodeSync(Schema.parseJson(StorageError.StorageError))(failure),
    Cause.pretty(Cause.fail(failure), { renderErrorCause: true })
  ].join("\n")

/** The failure of an effect, which shows no secret. */
const failing = <A, E extends StorageError.StorageError, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<E, A, R> =>
  Effect.tap(Effect.flip(effect), (failure) =>
    Effect.sync(() => {
      for (const secret of secrets) expect(shown(failure)).not.toContain(secret)
    }))

type Options = Omit<S3Storage.Options, "bucket">

/** A storage on a new bucket, and a proxy that notes what is asked of it. */
const setup = (given: Options | ((endpoint: string) => Options)) =>
  Effect.gen(function*() {
    const bucket = yield* makeBucket
    const proxy = yield* FaultProxy.make(server.endpoint)
    const extra = typeof given === "function" ? given(proxy.endpoint) : { endpoint: proxy.endpoint, ...given }
    const storage = yield* S3Storage.make({ bucket, retry, ...extra })
    return { bucket, proxy, storage }
  })

const content = new Uint8Array([1, 2, 3])

/** Whether one can save, load and list. */
const works = (storage: Storage.Service) =>
  Effect.gen(function*() {
    yield* storage.save("a key", content)
    expect(yield* storage.load("a key")).toEqual(content)
    expect(yield* storage.list()).toEqual(["a key"])
  })

/** What each request was signed with: key id, region and session token. */
const signedWith = (proxy: FaultProxy.FaultProxy) =>
  proxy.requests.map(({ headers }) => {
    const { authorization = "" } = headers
    const [, keyId, , region] = /Credential=([^/]*)\/([^/]*)\/([^/]*)\//.exec(authorization) ?? []
    const names = /SignedHeaders=([^,]*)/.exec(authorization)?.[1]?.split(";") ?? []
    const sent = headers["x-amz-security-token"]?.toString()
    return { keyId, region, token: sent, covered: sent === undefined || names.includes("x-amz-security-token") }
  })

const byTheRightUser = { keyId: right.accessKeyId, region, token: undefined, covered: true }

/**
 * The process environment, for as long as the scope is open: these variables, a home without files, no service of an
 * instance to ask, and else nothing that the SDK looks at. Gives the home.
 */
const environment = (variables: Readonly<Record<string, string>>) =>
  Effect.gen(function*() {
    const home = yield* temporaryDirectory
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const before = { ...process.env }
        for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) delete process.env[name]
        Object.assign(process.env, { HOME: home, AWS_EC2_METADATA_DISABLED: "true", ...variables })
        return before
      }),
      (before) =>
        Effect.sync(() => {
          for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name]
          Object.assign(process.env, before)
        })
    )
    return home
  })

/** The environment with the shared files of the AWS tools, each with this text, not in their usual place. */
const files = (
  text: { readonly credentials?: string; readonly config?: string },
  variables: Readonly<Record<string, string>> = {}
) =>
  Effect.gen(function*() {
    const directory = yield* temporaryDirectory
    const [credentials, config] = [join(directory, "credentials"), join(directory, "config")]
    writeFileSync(credentials, text.credentials ?? "")
    writeFileSync(config, text.config ?? "")
    yield* environment({ AWS_SHARED_CREDENTIALS_FILE: credentials, AWS_CONFIG_FILE: config, ...variables })
  })

const keys = `
  aws_access_key_id = ${right.accessKeyId}
  aws_secret_access_key = ${server.secretAccessKey}`

interface Asked {
  readonly method: string
  readonly url: string
  readonly headers: http.IncomingHttpHeaders
  readonly body: string
}

/** What is asked for credentials: a server on loopback. No answer means that it never comes. */
const service = (answer: (asked: Asked) => { readonly status?: number; readonly body: string } | undefined) =>
  Effect.gen(function*() {
    const asked: Array<Asked> = []
    const server = http.createServer((incoming, response) => {
      let body = ""
      incoming.setEncoding("utf8").on("data", (text: string) => {
        body += text
      }).on("end", () => {
        const request = { method: incoming.method ?? "", url: incoming.url ?? "", headers: incoming.headers, body }
        asked.push(request)
        const answered = answer(request)
        if (answered !== undefined) response.writeHead(answered.status ?? 200).end(answered.body)
      })
    })
    const { endpoint } = yield* listen(server)
    return { endpoint, asked }
  })

/** Credentials as containers and instances give them. */
const handedOut = (expiresIn: Duration.DurationInput, token = "handed-out") =>
  JSON.stringify({
    Code: "Success",
    AccessKeyId: right.accessKeyId,
    SecretAccessKey: server.secretAccessKey,
    Token: token,
    Expiration: new Date(Date.now() + Duration.toMillis(expiresIn)).toISOString()
  })

// A server that knows temporary credentials refuses made-up session tokens.
const takesAnyToken = server.kind !== "given"
const checksWho = server.kind !== "emulator"

describe("credentials that are given", () => {
  it.scopedLive("are a key id and a secret", () =>
    Effect.gen(function*() {
      const { proxy, storage } = yield* setup({ region, credentials: right })
      yield* works(storage)
      expect(Arr.dedupeWith(signedWith(proxy), (a, b) => inspect(a) === inspect(b))).toEqual([byTheRightUser])
    }))

  it.scopedLive.skipIf(!takesAnyToken)("have a session token, which is sent and signed", () =>
    Effect.gen(function*() {
      const credentials = { ...right, sessionToken: Redacted.make(token) }
      const { proxy, storage } = yield* setup({ region, credentials })
      yield* works(storage)
      expect(signedWith(proxy).length).toBeGreaterThan(3)
      for (const request of signedWith(proxy)) expect(request).toEqual({ ...byTheRightUser, token })
    }))

  it.scopedLive("come before those of the environment", () =>
    Effect.gen(function*() {
      yield* environment({ AWS_ACCESS_KEY_ID: "nobody", AWS_SECRET_ACCESS_KEY: wrongSecret, AWS_REGION: "eu-west-3" })
      const { proxy, storage } = yield* setup({ region, credentials: right })
      yield* works(storage)
      for (const request of signedWith(proxy)) expect(request).toEqual(byTheRightUser)
    }))

  const fromConfig = S3Storage.layerConfig({
    bucket: Config.string("BUCKET"),
    prefix: Config.string("PREFIX"),
    endpoint: Config.string("ENDPOINT"),
    region: Config.string("REGION"),
    partSize: Config.number("PART_SIZE"),
    idleTimeout: Config.duration("IDLE_LIMIT"),
    verify: Config.boolean("VERIFY_BUCKET"),
    credentials: { accessKeyId: Config.string("KEY_ID"), secretAccessKey: Config.redacted("SECRET") }
  })

  const settings = (bucket: string) => ({
    BUCKET: bucket,
    PREFIX: "models/",
    ENDPOINT: server.endpoint,
    REGION: region,
    PART_SIZE: "6000000",
    IDLE_LIMIT: "10 seconds",
    VERIFY_BUCKET: "yes",
    KEY_ID: right.accessKeyId,
    SECRET: server.secretAccessKey
  })

  const withSettings = (settings: Readonly<Record<string, string>>) =>
    Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(settings))))

  it.scopedLive("come, like every other option, from Config", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const layer = Layer.provide(fromConfig, withSettings(settings(bucket)))
      const storage = yield* Effect.map(Layer.build(layer), Context.get(Storage.Storage))
      yield* works(storage)
      expect(storage.backend.name).toBe(`S3(${bucket}/models/)`)
      const whole = yield* S3Storage.make({ ...options, bucket })
      expect(yield* whole.list()).toEqual(["models/a key"])
    }))

  it.scopedLive("are named where Config has not got them", () =>
    Effect.gen(function*() {
      const { SECRET: _, ...rest } = settings("models")
      const failure = yield* Effect.flip(Layer.build(Layer.provide(fromConfig, withSettings(rest))))
      expect(ConfigError.isConfigError(failure)).toBe(true)
      expect(inspect(failure)).toContain("SECRET")
    }))

  it("are not shown by the options that hold them", () => {
    const credentials = { ...right, sessionToken: Redacted.make(token) }
    const whole: S3Storage.Options = { ...options, bucket: "models", credentials }
    for (const text of [JSON.stringify(whole), inspect(whole, { depth: 10 })]) {
      for (const secret of secrets) expect(text).not.toContain(secret)
    }
    expect(JSON.stringify(whole)).toContain(right.accessKeyId)
  })
})

describe("a client of the app's own", () => {
  const ownClient = (endpoint: string) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        let destroyed = 0
        const own = client(server, { endpoint })
        const destroy = own.destroy.bind(own)
        own.destroy = () => {
          destroyed++
          destroy()
        }
        return { own, destroyed: () => destroyed }
      }),
      ({ own }) => Effect.sync(() => own.destroy())
    )

  it.scopedLive("is used, and left alone when the layer goes", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const proxy = yield* FaultProxy.make(server.endpoint)
      const { destroyed, own } = yield* ownClient(proxy.endpoint)
      yield* Effect.flatMap(Storage.Storage, works).pipe(
        Effect.provide(S3Storage.layerFromClient(own, { bucket, retry }))
      )
      expect(proxy.requests.length).toBeGreaterThan(3)
      expect(destroyed()).toBe(0)
      expect(proxy.openSockets()).toBeGreaterThan(0)
      yield* Effect.promise(() => own.send(new HeadBucketCommand({ Bucket: bucket })))
    }))

  it.scopedLive("may have found its credentials in its own way, and may change them", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const proxy = yield* FaultProxy.make(server.endpoint)
      let asked = 0
      const own = client(server, {
        endpoint: proxy.endpoint,
        credentials: () =>
          Promise.resolve({
            accessKeyId: server.accessKeyId,
            secretAccessKey: server.secretAccessKey,
            ...(takesAnyToken && { sessionToken: `token ${++asked}` }),
            expiration: new Date(Date.now() + 1000)
          })
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => own.destroy()))
      const storage = yield* S3Storage.makeFromClient(own, { bucket, retry })
      yield* works(storage)
      const tokens = signedWith(proxy).map(({ token }) => token)
      if (takesAnyToken) expect(new Set(tokens).size).toBe(tokens.length)
    }))

  it.scopedLive("is made by every other layer, and goes with it", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const proxy = yield* FaultProxy.make(server.endpoint)
      const scope = yield* Scope.make()
      const layer = S3Storage.layer({ ...options, endpoint: proxy.endpoint, bucket, retry })
      const storage = yield* Layer.build(layer).pipe(Effect.map(Context.get(Storage.Storage)), Scope.extend(scope))
      yield* works(storage)
      expect(proxy.openSockets()).toBeGreaterThan(0)
      yield* Scope.close(scope, Exit.void)
      yield* Effect.repeat(Effect.sleep(10), { while: () => proxy.openSockets() > 0 })
    }))
})

describe("credentials that are found", () => {
  it.scopedLive("in the environment, with region and endpoint", () =>
    Effect.gen(function*() {
      const { proxy, storage } = yield* Effect.flatMap(FaultProxy.make(server.endpoint), (proxy) =>
        Effect.gen(function*() {
          const bucket = yield* makeBucket
          yield* environment({
            AWS_ACCESS_KEY_ID: right.accessKeyId,
            AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
            AWS_REGION: "eu-west-3",
            AWS_ENDPOINT_URL_S3: proxy.endpoint
          })
          return { proxy, storage: yield* S3Storage.make({ bucket, forcePathStyle: true, retry }) }
        }))
      yield* works(storage)
      for (const request of signedWith(proxy)) {
        expect(request).toEqual({ ...byTheRightUser, region: "eu-west-3" })
      }
    }))

  it.scopedLive.skipIf(!takesAnyToken)("in the environment, with a session token", () =>
    Effect.gen(function*() {
      yield* environment({
        AWS_ACCESS_KEY_ID: right.accessKeyId,
        AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
        AWS_SESSION_TOKEN: token
      })
      const { proxy, storage } = yield* setup({})
      yield* works(storage)
      for (const request of signedWith(proxy)) {
        expect(request).toEqual({ ...byTheRightUser, region: "us-east-1", token })
      }
    }))

  const profiles = {
    credentials: `
      [default]
      aws_access_key_id = nobody
      aws_secret_access_key = ${wrongSecret}

      [weights]${keys}`,
    config: `
      [profile weights]
      region = ap-south-1`
  }
  const ofTheProfile = { ...byTheRightUser, region: "ap-south-1" }

  it.scopedLive("in a profile that is named, with its region", () =>
    Effect.gen(function*() {
      yield* files(profiles)
      const { proxy, storage } = yield* setup({ profile: "weights" })
      yield* works(storage)
      for (const request of signedWith(proxy)) expect(request).toEqual(ofTheProfile)
    }))

  it.scopedLive("in the profile of AWS_PROFILE", () =>
    Effect.gen(function*() {
      yield* files(profiles, { AWS_PROFILE: "weights" })
      const { proxy, storage } = yield* setup({})
      yield* works(storage)
      for (const request of signedWith(proxy)) expect(request).toEqual(ofTheProfile)
    }))

  it.scopedLive("in the profile named default, in the home directory", () =>
    Effect.gen(function*() {
      const home = yield* environment({})
      mkdirSync(join(home, ".aws"))
      writeFileSync(join(home, ".aws/credentials"), `[default]${keys}`)
      writeFileSync(join(home, ".aws/config"), "[default]\nregion = ap-south-1")
      const { proxy, storage } = yield* setup({})
      yield* works(storage)
      for (const request of signedWith(proxy)) expect(request).toEqual(ofTheProfile)
    }))

  it.scopedLive("in a profile that is named, before those of the environment", () =>
    Effect.gen(function*() {
      const nobody = { AWS_ACCESS_KEY_ID: "nobody", AWS_SECRET_ACCESS_KEY: wrongSecret }
      yield* files(profiles, nobody)
      const { storage } = yield* setup({ profile: "weights" })
      yield* works(storage)
    }))

  it.scopedLive("in the profile of AWS_PROFILE, with an endpoint of its own", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      yield* files({
        credentials: profiles.credentials,
        config: `
[profile weights]
region = ap-south-1
services = mine

[services mine]
s3 =
  endpoint_url = ${server.endpoint}
`
      }, { AWS_PROFILE: "weights" })
      const storage = yield* S3Storage.make({ bucket, forcePathStyle: true, retry })
      yield* works(storage)
    }))

  it.scopedLive("by a program that the profile names", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const file = join(directory, "answer.json")
      const { accessKeyId } = right
      writeFileSync(
        file,
        JSON.stringify({ Version: 1, AccessKeyId: accessKeyId, SecretAccessKey: server.secretAccessKey })
      )
      yield* files({ config: `[profile weights]\ncredential_process = cat ${file}` })
      const { storage } = yield* setup({ profile: "weights", region })
      yield* works(storage)
    }))

  describe.skipIf(!takesAnyToken)("and are temporary", () => {
    it.scopedLive("from the container", () =>
      Effect.gen(function*() {
        const { asked, endpoint } = yield* service(() => ({ body: handedOut("1 hour") }))
        yield* environment({
          AWS_CONTAINER_CREDENTIALS_FULL_URI: `${endpoint}/credentials`,
          AWS_CONTAINER_AUTHORIZATION_TOKEN: "let me in"
        })
        const { proxy, storage } = yield* setup({ region })
        yield* works(storage)
        for (const request of signedWith(proxy)) expect(request).toEqual({ ...byTheRightUser, token: "handed-out" })
        expect(asked.map(({ headers, method, url }) => [method, url, headers.authorization])).toEqual([
          ["GET", "/credentials", "let me in"]
        ])
      }))

    it.scopedLive("from the instance, to whoever has its token", () =>
      Effect.gen(function*() {
        const roles = "/latest/meta-data/iam/security-credentials/"
        const { asked, endpoint } = yield* service(({ headers, method, url }) =>
          method === "PUT" && url === "/latest/api/token"
            ? { body: "token of the instance" }
            : headers["x-aws-ec2-metadata-token"] !== "token of the instance"
            ? { status: 401, body: "" }
            : url === roles
            ? { body: "the-role" }
            : url === `${roles}the-role`
            ? { body: handedOut("1 hour") }
            : { status: 404, body: "" }
        )
        yield* environment({ AWS_EC2_METADATA_DISABLED: "false", AWS_EC2_METADATA_SERVICE_ENDPOINT: endpoint })
        const { proxy, storage } = yield* setup({ region })
        yield* works(storage)
        for (const request of signedWith(proxy)) expect(request).toEqual({ ...byTheRightUser, token: "handed-out" })
        expect(asked.map(({ method, url }) => `${method} ${url}`)).toEqual([
          "PUT /latest/api/token",
          `GET ${roles}`,
          `GET ${roles}the-role`
        ])
      }))

    it.scopedLive("by single sign-on", () =>
      Effect.gen(function*() {
        const { asked, endpoint } = yield* service(() => ({
          body: JSON.stringify({
            roleCredentials: {
              accessKeyId: right.accessKeyId,
              secretAccessKey: server.secretAccessKey,
              sessionToken: "signed-on",
              expiration: Date.now() + 3600_000
            }
          })
        }))
        const start = "https://example.awsapps.com/start"
        const home = yield* environment({ AWS_ENDPOINT_URL_SSO: endpoint })
        mkdirSync(join(home, ".aws/sso/cache"), { recursive: true })
        writeFileSync(
          join(home, ".aws/config"),
          `[profile weights]
sso_start_url = ${start}
sso_region = us-east-1
sso_account_id = 1
sso_role_name = reader`
        )
        const hour = new Date(Date.now() + 3600_000).toISOString()
        writeFileSync(
          join(home, ".aws/sso/cache", `${createHash("sha1").update(start).digest("hex")}.json`),
          JSON.stringify({ accessToken: "signed on", expiresAt: hour, region: "us-east-1", startUrl: start })
        )
        const { proxy, storage } = yield* setup({ region, profile: "weights" })
        yield* works(storage)
        for (const request of signedWith(proxy)) expect(request).toEqual({ ...byTheRightUser, token: "signed-on" })
        expect(asked.map(({ headers }) => headers["x-amz-sso_bearer_token"])).toEqual(["signed on"])
        const { searchParams } = new URL(asked[0]?.url ?? "", endpoint)
        expect(Object.fromEntries(searchParams)).toEqual({ account_id: "1", role_name: "reader" })
      }))

    it.scopedLive("for a web identity, as pods of Kubernetes have one", () =>
      Effect.gen(function*() {
        const { asked, endpoint } = yield* service(() => ({
          body: `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
            <AssumeRoleWithWebIdentityResult><Credentials>
              <AccessKeyId>${right.accessKeyId}</AccessKeyId>
              <SecretAccessKey>${server.secretAccessKey}</SecretAccessKey>
              <SessionToken>assumed</SessionToken>
              <Expiration>${new Date(Date.now() + 3600_000).toISOString()}</Expiration>
            </Credentials></AssumeRoleWithWebIdentityResult>
          </AssumeRoleWithWebIdentityResponse>`
        }))
        const directory = yield* temporaryDirectory
        writeFileSync(join(directory, "identity"), "the identity")
        yield* environment({
          AWS_WEB_IDENTITY_TOKEN_FILE: join(directory, "identity"),
          AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/reader",
          AWS_ENDPOINT_URL_STS: endpoint
        })
        const { proxy, storage } = yield* setup({ region })
        yield* works(storage)
        for (const request of signedWith(proxy)) expect(request).toEqual({ ...byTheRightUser, token: "assumed" })
        expect(asked.map(({ body }) => new URLSearchParams(body).get("WebIdentityToken"))).toEqual(["the identity"])
      }))

    /** A container that gives the token `1`, then `2` … */
    const counting = (expiresIn: (count: number) => Duration.DurationInput) =>
      Effect.gen(function*() {
        let count = 0
        const expiry = new Map<string, number>()
        const { endpoint } = yield* service(() => {
          count++
          const life = expiresIn(count)
          expiry.set(`${count}`, Date.now() + Duration.toMillis(life))
          return { body: handedOut(life, `${count}`) }
        })
        yield* environment({ AWS_CONTAINER_CREDENTIALS_FULL_URI: endpoint })
        const { proxy, storage } = yield* setup({ region })
        return { storage, expiry, count: () => count, tokens: () => signedWith(proxy).map(({ token }) => `${token}`) }
      })

    it.scopedLive("are asked for once, however many requests there are at once", () =>
      Effect.gen(function*() {
        const { count, storage } = yield* counting(() => "1 hour")
        yield* storage.save("a key", content)
        yield* Effect.all(Array.from({ length: 32 }, () => storage.load("a key")), { concurrency: 32 })
        expect(count()).toBe(1)
      }))

    it.scopedLive("are renewed five minutes before they expire", () =>
      Effect.gen(function*() {
        const { count, storage, tokens } = yield* counting((count) =>
          Duration.sum("5 minutes", count === 1 ? "3 seconds" : "1 hour")
        )
        yield* works(storage)
        expect(new Set(tokens())).toEqual(new Set(["1"]))
        yield* Effect.sleep("3 seconds")
        yield* Effect.repeat(storage.load("a key"), Schedule.addDelay(Schedule.recurs(3), () => "50 millis"))
        expect(tokens().at(-1)).toBe("2")
        expect(count()).toBe(2)
      }))

    it.scopedLive("are not used once they have expired", () =>
      Effect.gen(function*() {
        const { expiry, storage, tokens } = yield* counting(() => "1 second")
        yield* works(storage)
        yield* Effect.sleep("1500 millis")
        const began = Date.now()
        expect(yield* storage.load("a key")).toEqual(content)
        expect(expiry.get(tokens().at(-1) ?? "")).toBeGreaterThanOrEqual(began)
      }))
  })
})

describe("what does not open says what to change", () => {
  const opening = (given: Omit<S3Storage.Options, "bucket" | "retry"> & { readonly bucket?: string }) =>
    failing(Effect.scoped(S3Storage.make({ bucket: "models", retry, ...given })))

  const openingABucket = (given: Options) =>
    Effect.flatMap(makeBucket, (bucket) => opening({ ...options, bucket, ...given }))

  it.scopedLive.skipIf(!checksWho)("an access key id that nobody has", () =>
    Effect.gen(function*() {
      const failure = yield* openingABucket({ credentials: { ...right, accessKeyId: "nobody" } })
      expect(failure).toBeInstanceOf(StorageError.AccessDenied)
      expect(failure.message).toMatch(/make on S3\(test-.*does not know this access key id; correct the credentials/)
      expect(failure.message).toMatch(/InvalidAccessKeyId, HTTP 403, request \S+\)/)
    }))

  it.scopedLive.skipIf(!checksWho)("a secret that is another's", () =>
    Effect.gen(function*() {
      const failure = yield* openingABucket({
        credentials: { ...right, secretAccessKey: Redacted.make(wrongSecret) }
      })
      expect(failure).toBeInstanceOf(StorageError.AccessDenied)
      expect(failure.message).toMatch(/secret access key does not belong to the access key id; correct the credentials/)
    }))

  it.scopedLive.skipIf(!checksWho)(
    "credentials that are wrong are not taken for too narrow a policy",
    () =>
      Effect.gen(function*() {
        const failure = yield* openingABucket({ credentials: { ...right, accessKeyId: "nobody" } })
        expect(failure.message).not.toContain("verify")
      })
  )

  it.scopedLive.skipIf(server.other === undefined)("a bucket of somebody else", () =>
    Effect.gen(function*() {
      const failure = yield* openingABucket({ credentials: toCredentials(server.other) })
      expect(failure).toBeInstanceOf(StorageError.AccessDenied)
      expect(failure.message).toMatch(/these credentials do not allow this; allow it in the policy/)
    }))

  it.scopedLive.skipIf(server.kind !== "radosgw")(
    "a bucket that one may load from and not list",
    () =>
      Effect.gen(function*() {
        const bucket = yield* makeBucket
        const owner = yield* S3Storage.make({ ...options, bucket })
        yield* owner.save("a key", content)
        const user = server.other?.accessKeyId ?? ""
        const Policy = JSON.stringify({
          Version: "2012-10-17",
          Statement: [{
            Effect: "Allow",
            Principal: { AWS: [`arn:aws:iam:::user/${user}`] },
            Action: ["s3:GetObject"],
            Resource: [`arn:aws:s3:::${bucket}/*`]
          }]
        })
        yield* Effect.promise(() => sdk.send(new PutBucketPolicyCommand({ Bucket: bucket, Policy })))
        const reader = { ...options, credentials: toCredentials(server.other), bucket, retry }
        const failure = yield* failing(Effect.scoped(S3Storage.make(reader)))
        expect(failure).toBeInstanceOf(StorageError.AccessDenied)
        expect(failure.message).toContain("verify: false")
        const storage = yield* S3Storage.make({ ...reader, verify: false })
        expect(yield* storage.load("a key")).toEqual(content)
        expect(yield* failing(storage.save("a key", content))).toBeInstanceOf(StorageError.AccessDenied)
        expect(yield* failing(storage.list())).toBeInstanceOf(StorageError.AccessDenied)
        expect(yield* failing(storage.remove("a key"))).toBeInstanceOf(StorageError.AccessDenied)
      })
  )

  it.scopedLive("a bucket that is not there", () =>
    Effect.gen(function*() {
      const bucket = `missing-${randomUUID()}`
      const failure = yield* opening({ ...options, bucket })
      expect(failure).toBeInstanceOf(StorageError.StorageNotFound)
      expect(failure.message).toContain(
        `the bucket "${bucket}" does not exist; create it, or correct bucket or endpoint`
      )
    }))

  it.scopedLive("a bucket in another region, whose name the server tells", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const proxy = yield* FaultProxy.make(server.endpoint)
      const answers = [
        FaultProxy.Fault.Answer({ status: 301, headers: { "x-amz-bucket-region": "eu-central-1" } }),
        FaultProxy.Fault.Answer({
          status: 400,
          body: "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>"
        })
      ]
      for (const fault of answers) {
        proxy.add({ match: () => true, fault })
        const failure = yield* opening({ ...options, endpoint: proxy.endpoint, bucket })
        expect(failure).toBeInstanceOf(StorageError.StorageNotFound)
        expect(failure.message).toContain("set region: \"eu-central-1\"")
      }
    }))

  it.scopedLive("no region, and no endpoint either", () =>
    Effect.gen(function*() {
      yield* environment({})
      const failure = yield* opening({ credentials: right })
      expect(failure.message).toMatch(/set region\b/)
      expect(failure.message).toContain("AWS_REGION")
    }))

  it.scopedLive("an endpoint that is no URL", () =>
    Effect.gen(function*() {
      yield* environment({})
      for (const endpoint of ["127.0.0.1:9000", "localhost:9000", "minio"]) {
        const failure = yield* opening({ ...options, endpoint })
        expect(StorageError.isRetryable(failure)).toBe(false)
        expect(failure.message).toContain(endpoint)
        expect(failure.message).toContain("http://")
      }
    }))

  it.scopedLive("options out of bounds, before anything is asked of the server", () =>
    Effect.gen(function*() {
      const size = "partSize must be a whole number of bytes from 5 MiB to 2 GiB"
      const wrong: ReadonlyArray<readonly [Options, string]> = [
        [{ partSize: 5 * 1024 ** 2 - 1 }, `${size} (got 5242879 bytes)`],
        [{ partSize: 2 * 1024 ** 3 + 1 }, `${size} (got 2147483649 bytes)`],
        [{ partSize: 8_000_000.5 }, `${size} (got 8000000.5 bytes)`],
        [{ partSize: NaN }, `${size} (got NaN bytes)`],
        [{ idleTimeout: 0 }, "idleTimeout must be greater than zero"],
        [{ idleTimeout: "25 days" }, "(got 25d)"],
        [{ idleTimeout: Infinity }, "(got Infinity)"],
        [{ concurrency: 0 }, "concurrency must be a whole number of at least 1 (got 0)"],
        [{ streamConcurrency: 1.5 }, "streamConcurrency must be a whole number of at least 1 (got 1.5)"],
        [{ prefix: "/models" }, `prefix must be the beginning of a key, without a slash at its start (got "/models")`],
        [{ contentType: "text/plain\r\nx-evil: 1" }, "contentType must be a media type, in printable ASCII"],
        [{ serverSideEncryption: { type: "SSE-C", key: Redacted.make(new Uint8Array(31)) } }, "key of 32 bytes"]
      ]
      for (const [given, message] of wrong) {
        const failure = yield* opening({ ...options, endpoint: "http://127.0.0.1:9", ...given })
        expect(failure, message).toMatchObject({ _tag: "InvalidOptions", module: "S3Storage" })
        expect(failure.message).toContain(message)
      }
    }))

  it.scopedLive("an endpoint with a password, which is not shown", () =>
    Effect.gen(function*() {
      for (
        const endpoint of [`http://user:${token}@127.0.0.1:9`, `https://${encodeURIComponent(wrongSecret)}@s3.example`]
      ) {
        const failure = yield* opening({ ...options, endpoint })
        expect(failure).toMatchObject({ _tag: "InvalidOptions", option: "endpoint" })
        expect(failure.message).toContain("holds no credentials")
      }
    }))

  it.scopedLive("a bucket name that cannot be one", () =>
    Effect.gen(function*() {
      for (const bucket of ["", "a/b"]) {
        const failure = yield* opening({ ...options, bucket })
        expect(StorageError.isRetryable(failure)).toBe(false)
        expect(failure.message).toContain(`the bucket ${JSON.stringify(bucket)}`)
      }
    }))

  it.scopedLive("no credentials anywhere", () =>
    Effect.gen(function*() {
      yield* environment({})
      const failure = yield* opening({ endpoint, region })
      expect(failure).toBeInstanceOf(StorageError.AccessDenied)
      expect(failure.message).toMatch(/there are no usable credentials/)
      expect(failure.message).toMatch(
        /give credentials or a profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY/
      )
    }))

  it.scopedLive("a profile that is not there", () =>
    Effect.gen(function*() {
      yield* files({ credentials: `[default]${keys}` })
      const failure = yield* opening({ endpoint, region, profile: "nobody" })
      expect(failure).toBeInstanceOf(StorageError.AccessDenied)
      expect(failure.message).toContain("nobody")
    }))

  it.scopedLive("an instance that gives no answer", () =>
    Effect.gen(function*() {
      const { asked, endpoint: instance } = yield* service(() => undefined)
      yield* environment({ AWS_EC2_METADATA_DISABLED: "false", AWS_EC2_METADATA_SERVICE_ENDPOINT: instance })
      const failure = yield* opening({ endpoint, region, idleTimeout: "10 seconds" })
      expect(asked).not.toEqual([])
      expect(failure).toBeInstanceOf(StorageError.AccessDenied)
    }))

  it.scopedLive("credentials whose source hangs, within the idle timeout", () =>
    Effect.gen(function*() {
      yield* files({ config: "[profile weights]\ncredential_process = sleep 10" })
      const failure = yield* opening({ endpoint, region, profile: "weights", idleTimeout: "300 millis" })
      expect(failure).toBeInstanceOf(StorageError.StorageTimeout)
    }))

  it.scopedLive(
    "an answer of the container that cannot be read, of which nothing is shown",
    () =>
      Effect.gen(function*() {
        const { endpoint: container } = yield* service(() => ({ body: `{"SecretAccessKey":${wrongSecret}}` }))
        yield* environment({ AWS_CONTAINER_CREDENTIALS_FULL_URI: container })
        const failure = yield* opening({ endpoint, region })
        expect(failure).toBeInstanceOf(StorageError.AccessDenied)
        // Some parsers quote a few characters of what they cannot read.
        expect(shown(failure)).not.toContain(wrongSecret.slice(0, 6))
      })
  )

  it.scopedLive("credentials with a line break, which cannot be sent", () =>
    Effect.gen(function*() {
      const broken = [
        { ...right, accessKeyId: `${right.accessKeyId}\n` },
        { ...right, sessionToken: Redacted.make(`${token}\n`) }
      ]
      for (const credentials of broken) {
        const failure = yield* opening({ ...options, credentials })
        expect(failure).toBeInstanceOf(StorageError.AccessDenied)
      }
    }))

  it.scopedLive("a server that is not there, after the policy's attempts", () =>
    Effect.gen(function*() {
      const failure = yield* opening({ ...options, endpoint: "http://127.0.0.1:1" })
      expect(failure).toBeInstanceOf(StorageError.StorageUnavailable)
      expect(failure.message).toMatch(
        /ECONNREFUSED 127\.0\.0\.1:1\); start the server, or correct host and port; gave up after 2 attempts/
      )
    }))

  it.scopedLive("a missing bucket, where verify is false, only when it is used", () =>
    Effect.gen(function*() {
      const bucket = `missing-${randomUUID()}`
      const storage = yield* S3Storage.make({ ...options, bucket, verify: false, retry })
      const uses = {
        load: storage.load("a key"),
        stream: Stream.runDrain(storage.stream("a key")),
        save: storage.save("a key", content),
        saveInParts: storage.save("a key", new Uint8Array(9 * 1024 * 1024)),
        list: storage.list(),
        entries: Stream.runDrain(storage.entries()),
        listDirectory: storage.listDirectory(),
        remove: storage.remove("a key")
      }
      for (const [name, use] of Object.entries(uses)) {
        const failure = yield* failing(Effect.asVoid<unknown, StorageError.StorageError, never>(use))
        expect(failure, name).toBeInstanceOf(StorageError.StorageNotFound)
        expect(failure.message, name).toContain(`the bucket "${bucket}" does not exist`)
      }
    }))
})

const toCredentials = (user = { accessKeyId: "", secretAccessKey: "" }) => ({
  accessKeyId: user.accessKeyId,
  secretAccessKey: Redacted.make(user.secretAccessKey)
})

describe("spans and logs", () => {
  it.scopedLive("show neither a secret nor a URL that works", () =>
    Effect.gen(function*() {
      const { spans, tracer } = yield* recordingTracer
      const logs: Array<unknown> = []
      const logger = Logger.replace(Logger.defaultLogger, Logger.make((entry) => void logs.push(entry)))
      const bucket = yield* makeBucket
      const proxy = yield* FaultProxy.make(server.endpoint)
      const key = randomUUID().replaceAll("-", "")
      const urls = yield* Effect.gen(function*() {
        const storage = yield* S3Storage.make({
          ...options,
          endpoint: proxy.endpoint,
          credentials: takesAnyToken ? { ...right, sessionToken: Redacted.make(token) } : right,
          bucket,
          retry
        })
        yield* works(storage)
        proxy.add({
          match: ({ method }) => method === "PUT",
          fault: FaultProxy.Fault.Answer({ status: 403, body: "<Error><Code>SignatureDoesNotMatch</Code></Error>" })
        })
        yield* failing(storage.save("refused", content))
        // An upload that is refused and cannot be aborted is told in the log.
        proxy.add({
          match: ({ method, query }) => method === "PUT" && query.has("partNumber"),
          times: 10,
          fault: FaultProxy.Fault.Answer({ status: 403, body: "<Error><Code>AccessDenied</Code></Error>" })
        })
        proxy.add({
          match: ({ method }) => method === "DELETE",
          times: 10,
          fault: FaultProxy.Fault.Answer({ status: 500 })
        })
        yield* failing(storage.save("refused", new Uint8Array(9 * 1024 * 1024)))
        proxy.clear()
        const UploadId = proxy.requests.flatMap(({ query }) => query.get("uploadId") ?? [])[0]
        yield* Effect.promise(() =>
          sdk.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key: "refused", UploadId }))
        )
        const secretKey = Redacted.make(new TextEncoder().encode(key))
        const encrypted = yield* S3Storage.make({
          ...options,
          bucket,
          retry,
          serverSideEncryption: { type: "SSE-C", key: secretKey }
        })
        yield* Effect.exit(encrypted.save("encrypted", content))
        return yield* Effect.forEach(
          ["GET", "PUT"] as const,
          (method) => storage.presign("a key", { method, expiresIn: "1 minute" })
        )
      }).pipe(Effect.withTracer(tracer), Effect.provide(logger))

      expect(spans.map(({ name }) => name)).toEqual(expect.arrayContaining(["Storage.save", "Storage.presign"]))
      expect(logs).not.toEqual([])
      const noted = [
        ...spans.map(({ attributes, name, status }) =>
          inspect([name, attributes, status._tag === "Ended" && Exit.isFailure(status.exit) ? status.exit.cause : ""], {
            depth: 12
          })
        ),
        ...logs.map((entry) => inspect(entry, { depth: 12 }))
      ].join("\n")
      for (const secret of [...secrets, key, Buffer.from(key).toString("base64")]) expect(noted).not.toContain(secret)
      for (const url of urls) {
        expect(url).toContain("X-Amz-Signature=")
        expect(noted).not.toContain(new URL(url).searchParams.get("X-Amz-Signature"))
      }
      expect(noted).not.toContain("X-Amz-Signature")
    }))
})

describe("presign", () => {
  const oddKeys = [
    "plain.bin",
    "a folder/with spaces and + signs",
    "100%25 %2F #fragment ?query=1&b=2;c",
    "quotes ' \" ` and (parens)!*~",
    "back\\slash|pipe^caret{brace}[bracket]<angle>",
    "ключ/鍵/🗝️",
    "…/.hidden/trailing.",
    "con"
  ]

  const open = (extra: Partial<S3Storage.Options> = {}) =>
    Effect.flatMap(makeBucket, (bucket) => S3Storage.make({ ...options, bucket, retry, ...extra }))

  const request = (url: string, init: RequestInit = {}) =>
    Effect.promise(async () => {
      const answer = await fetch(url, init)
      return { status: answer.status, body: new Uint8Array(await answer.arrayBuffer()) }
    })

  const methods = ["GET", "PUT"] as const
  const { GET, PUT } = {
    GET: { method: "GET", expiresIn: "1 minute" },
    PUT: { method: "PUT", expiresIn: "1 minute" }
  } as const

  for (const prefix of ["", "models/v 1"]) {
    it.scopedLive(`gives URLs by which anybody loads and saves odd keys, ${prefix ? "with" : "without"} a prefix`, () =>
      Effect.gen(function*() {
        const storage = yield* open({ prefix })
        yield* Effect.forEach(oddKeys, (key, i) =>
          Effect.gen(function*() {
            yield* storage.save(key, Uint8Array.of(i, 1))
            const loaded = yield* request(yield* storage.presign(key, GET))
            expect(loaded, key).toEqual({ status: 200, body: Uint8Array.of(i, 1) })
            const put = yield* request(yield* storage.presign(key, PUT), { method: "PUT", body: Uint8Array.of(i, 2) })
            expect(put.status, key).toBe(200)
            expect(yield* storage.load(key), key).toEqual(Uint8Array.of(i, 2))
          }))
        // The emulator lists in another order, which is a failure.
        if (server.kind !== "emulator") expect(new Set(yield* storage.list())).toEqual(new Set(oddKeys))
      }))
  }

  it.scopedLive("is the accessor on the storage in the context", () =>
    Effect.gen(function*() {
      const storage = yield* open()
      yield* storage.save("a key", content)
      const url = yield* Effect.provideService(S3Storage.presign("a key", GET), Storage.Storage, storage)
      expect((yield* request(url)).body).toEqual(content)
    }))

  it.scopedLive.skipIf(!checksWho)(
    "gives a URL that is for its method and its key alone",
    () =>
      Effect.gen(function*() {
        const storage = yield* open()
        yield* storage.save("a", content)
        yield* storage.save("b", content)
        const url = yield* storage.presign("a", GET)
        expect((yield* request(url)).status).toBe(200)
        expect((yield* request(url, { method: "PUT", body: content })).status).toBe(403)
        expect((yield* request(url.replace(/\/a\?/, "/b?"))).status).toBe(403)
        expect((yield* request(url.replace(/X-Amz-Expires=60/, "X-Amz-Expires=600"))).status).toBe(403)
      })
  )

  it.scopedLive.skipIf(!checksWho)("gives a URL that is refused once it has expired", () =>
    Effect.gen(function*() {
      const storage = yield* open()
      yield* storage.save("a key", content)
      const url = yield* storage.presign("a key", { method: "GET", expiresIn: "2 seconds" })
      expect((yield* request(url)).status).toBe(200)
      yield* Effect.sleep("3500 millis")
      expect((yield* request(url)).status).toBe(403)
    }))

  it.scopedLive.skipIf(!takesAnyToken)("brings the session token along", () =>
    Effect.gen(function*() {
      const storage = yield* open({ credentials: { ...right, sessionToken: Redacted.make(token) } })
      yield* storage.save("a key", content)
      const url = yield* storage.presign("a key", GET)
      expect(new URL(url).searchParams.get("X-Amz-Security-Token")).toBe(token)
      expect((yield* request(url)).body).toEqual(content)
    }))

  it.scopedLive("is for one second to seven days", () =>
    Effect.gen(function*() {
      const storage = yield* open()
      for (const [expiresIn, seconds] of [["1 second", "1"], ["7 days", "604800"], ["1500 millis", "1"]] as const) {
        const url = yield* storage.presign("a key", { method: "GET", expiresIn })
        expect(new URL(url).searchParams.get("X-Amz-Expires")).toBe(seconds)
      }
      for (const expiresIn of ["0 seconds", "999 millis", "604801 seconds", Duration.infinity, NaN] as const) {
        for (const method of methods) {
          const failure = yield* failing(storage.presign("a key", { method, expiresIn }))
          expect(failure, String(expiresIn)).toBeInstanceOf(StorageError.UnsupportedOperation)
          expect(failure.message).toContain("one second to seven days")
        }
      }
    }))

  it.scopedLive("refuses what cannot be a key, with the prefix or without", () =>
    Effect.gen(function*() {
      const storage = yield* open({ prefix: "p".repeat(100) })
      for (const key of ["", "../up", "k".repeat(1000)]) {
        expect(yield* failing(storage.presign(key, GET))).toBeInstanceOf(StorageError.InvalidKey)
      }
    }))

  it.scopedLive("needs credentials, and says so", () =>
    Effect.gen(function*() {
      yield* environment({})
      const bucket = { endpoint, region, bucket: "models", verify: false, retry }
      const failure = yield* failing(
        Effect.flatMap(S3Storage.make(bucket), (storage) => storage.presign("a key", GET))
      )
      expect(failure).toBeInstanceOf(StorageError.AccessDenied)
      expect(failure.message).toMatch(/on S3\(models\): there are no usable credentials/)
    }))

  it.scoped("is refused where the storage gives no URLs", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      for (const method of methods) {
        const failure = yield* failing(storage.presign("a key", { method, expiresIn: "1 minute" }))
        expect(failure).toBeInstanceOf(StorageError.UnsupportedOperation)
      }
      expect(storage.backend.capabilities.presign).toBe(false)
    }))
})
