/**
 * File systems of their own for tests, mounted on an empty directory for as long as the scope is open.
 */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { temporaryDirectory } from "./directory.js"
import { canMount } from "./fileSystem.js"

const isOnPath = (program: string): boolean =>
  (process.env["PATH"] ?? "").split(path.delimiter).some((folder) => fs.existsSync(path.join(folder, program)))

/** Whether this process can mount what a program makes: its name, and that of its Debian package. */
export const canMountWith = (program: string): boolean => canMount && isOnPath(program)

export const canMountFuse = (program: string): boolean => canMountWith(program) && fs.existsSync("/dev/fuse")

const run = (program: string, ...args: ReadonlyArray<string>) => execFileSync(program, args, { stdio: "pipe" })

const mounted = (mount: (directory: string, beside: string) => void, unmount: string) =>
  Effect.gen(function*() {
    const directory = yield* temporaryDirectory
    const beside = yield* temporaryDirectory
    return yield* Effect.acquireRelease(
      Effect.sync(() => {
        mount(directory, beside)
        return directory
      }),
      () => Effect.sync(() => run(unmount, ...(unmount === "fusermount3" ? ["-u", "-z"] : ["-l"]), directory))
    )
  })

/** A file system in an image of 32 MiB, made by a program such as `mkfs.ext4`. */
export const image = (program: string, ...options: ReadonlyArray<string>) =>
  mounted((directory, beside) => {
    const file = path.join(beside, "image")
    fs.writeFileSync(file, "")
    fs.truncateSync(file, 32 * 1024 * 1024)
    run(program, "-q", ...options, file)
    run("mount", "-o", "loop", file, directory)
  }, "umount")

/** EncFS, which keeps whole seconds once a file is renamed. */
export const encfs = mounted((directory, beside) => {
  execFileSync("encfs", ["--standard", "--stdinpass", beside, directory], { input: "password\n", stdio: "pipe" })
}, "fusermount3")

/** A bucket by s3fs, which numbers the inodes that it happens to know and has no hard links. */
export const s3fs = (
  bucket: string,
  server: { readonly endpoint: string; readonly accessKeyId: string; readonly secretAccessKey: string }
) =>
  mounted((directory, beside) => {
    const password = path.join(beside, "password")
    fs.writeFileSync(password, `${server.accessKeyId}:${server.secretAccessKey}`, { mode: 0o600 })
    run("s3fs", bucket, directory, "-o", `passwd_file=${password},url=${server.endpoint},use_path_request_style`)
  }, "fusermount3")
