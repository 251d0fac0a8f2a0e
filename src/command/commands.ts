/**
 * The commands, with their options and what `--help` says of them.
 */
import * as Options from "@effect/cli/Options"
import { define, flag, place, places, text, texts } from "./define.js"

const include = texts("include", "pattern", "Copy only objects that match, such as *.safetensors. May be repeated.")
const exclude = texts("exclude", "pattern", "Leave out objects that match. May be repeated.")

const ls = define("ls", "List the objects and folders in a folder: size, time and name.", {
  place: place("place", "A folder or an object."),
  recursive: flag("recursive", "List the objects in deeper folders, too.")
}, async () => (await import("./ls.js")).ls)

const cat = define("cat", "Print objects to standard output.", {
  places: places("object", "The URL or path of an object.")
}, async () => (await import("./cat.js")).cat)

const cp = define(
  "cp",
  "Copy an object, or the objects of a folder into another one. Objects that are there already are left as they are.",
  {
    from: place("from", "An object, a folder, or - for standard input."),
    to: place("to", "A key, a folder (with a slash at its end), or - for standard output."),
    include,
    exclude
  },
  async () => (await import("./cp.js")).cp
)

const mv = define("mv", "Move an object, or the objects of a folder into another one.", {
  from: place("from", "An object or a folder."),
  to: place("to", "A key, or a folder (with a slash at its end).")
}, async () => (await import("./mv.js")).mv)

const rm = define("rm", "Remove objects, or with a slash at the end of a place all objects of a folder.", {
  places: places("place", "An object, or a folder with a slash at its end.")
}, async () => (await import("./rm.js")).rm)

const sync = define(
  "sync",
  "Copy what differs from one folder to another, so that the second has what the first has.",
  {
    from: place("from", "A folder."),
    to: place("to", "A folder."),
    include,
    exclude,
    delete: flag("delete", "Remove objects that the first folder does not have."),
    dryRun: flag("dry-run", "Print what would be done, and do nothing."),
    checksum: flag("checksum", "Compare the bytes of objects of the same size where checksums and etags cannot.")
  },
  async () => (await import("./sync.js")).sync
)

const stat = define("stat", "Print what is known of an object: size, time, etag, checksum, attributes.", {
  place: place("object", "The URL or path of an object.")
}, async () => (await import("./stat.js")).stat)

const du = define("du", "Print the size of a folder or an object.", {
  place: place("place", "A folder or an object.")
}, async () => (await import("./du.js")).du)

const inspect = define(
  "inspect",
  "Print the tensors of a safetensors file or of the index of a sharded model, or the chunks of a manifest.",
  { place: place("place", "A .safetensors file, a .safetensors.index.json, a manifest.json, or a folder with one.") },
  async () => (await import("./inspect.js")).inspect
)

const verify = define("verify", "Read the chunks of a model again, and compare them with its manifest.", {
  place: place("folder", "The folder with the manifest.json.")
}, async () => (await import("./verify.js")).verify)

const serve = define("serve", "Serve a folder over HTTP until a signal stops the server.", {
  place: place("folder", "A folder."),
  host: text("host", "address", "The address to listen on. Default: 127.0.0.1."),
  port: text("port", "number", "The port to listen on, 0 for any that is free. Default: 8765."),
  writable: flag("writable", "Let clients save and remove objects."),
  tokenFile: text(
    "token-file",
    "file",
    "Require one of the tokens in a file of lines \"read <token>\" and \"write <token>\"."
  ),
  tlsCert: text("tls-cert", "file", "Serve HTTPS with this certificate, in PEM."),
  tlsKey: text("tls-key", "file", "The key of the certificate, in PEM."),
  origin: texts("origin", "origin", "A web origin whose pages may use the server, or *. May be repeated."),
  redirect: text(
    "redirect",
    "duration",
    "Redirect loads to presigned URLs that are valid for this long, such as 10 minutes."
  ),
  cache: text("cache", "size", "Keep objects in memory, up to this size, such as 2GiB."),
  name: text("name", "name", "The name of the server in the failures that clients receive."),
  hub: flag("hub", "Be a model hub, too: clients load the folder <org>/<name> as a model, by HF_ENDPOINT alone."),
  accessLog: flag("access-log", "Log each request.")
}, async () => (await import("./serve.js")).serve)

const split = define("split", "Split a safetensors model into chunks of one layer each, with a manifest.", {
  source: place("source", "A .safetensors file, or the index of a sharded model."),
  target: place("target", "The folder for the chunks."),
  bytes: text("bytes", "size", "Make chunks of at most this size, such as 64MiB, instead of one for each layer."),
  order: texts("order", "module", "The modules in the order of the forward pass, where their names do not tell it.")
}, async () => (await import("./split.js")).split)

const presign = define("presign", "Print a URL with which anyone can load or save an object until it expires.", {
  place: place("object", "The URL of an object."),
  method: Options.choice("method", ["GET", "PUT"]).pipe(
    Options.withDescription("Load the object, or save it. Default: GET."),
    Options.withDefault("GET")
  ),
  expires: Options.text("expires").pipe(
    Options.withPseudoName("duration"),
    Options.withDescription("How long the URL is valid. Default: 1 hour."),
    Options.withDefault("1 hour")
  )
}, async () => (await import("./presign.js")).presign)

const push = define(
  "push",
  "Copy the files of a model to a storage: its weights by the index of shards, and its configuration.",
  {
    from: place("from", "The folder of the model."),
    to: place("to", "The folder to copy it to.")
  },
  async () => (await import("./model.js")).copyModel
)

const pull = define(
  "pull",
  "Copy the files of a model from a storage: its weights by the index of shards, and its configuration.",
  {
    from: place("from", "The folder of the model."),
    to: place("to", "The folder to copy it to.")
  },
  async () => (await import("./model.js")).copyModel
)

const bench = define(
  "bench",
  "Measure how fast objects are saved, loaded and listed in a folder. What is saved is removed again.",
  {
    place: place("folder", "A folder."),
    size: Options.text("size").pipe(
      Options.withPseudoName("size"),
      Options.withDescription("The size of the large object. Default: 64MiB."),
      Options.withDefault("64MiB")
    )
  },
  async () => (await import("./bench.js")).bench
)

export const commands = [
  ls,
  cat,
  cp,
  mv,
  rm,
  sync,
  stat,
  du,
  inspect,
  verify,
  serve,
  push,
  pull,
  split,
  presign,
  bench
] as const
