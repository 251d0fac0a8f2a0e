/** What is used of the packages in package.json beside this file, so that they need not be installed to check types. */
declare module "@aws-sdk/lib-storage" {
  import type { PutObjectCommandInput, S3Client } from "@aws-sdk/client-s3"

  export class Upload {
    constructor(options: { readonly client: S3Client; readonly params: PutObjectCommandInput })
    done(): Promise<unknown>
  }
}

declare module "opendal" {
  export class Operator {
    constructor(scheme: string, options: Readonly<Record<string, string>>)
    read(path: string, options?: { readonly offset?: bigint; readonly size?: bigint }): Promise<Buffer>
    exists(path: string): Promise<boolean>
    stat(path: string): Promise<{ readonly contentLength: bigint | null }>
    reader(path: string): Promise<{ createReadStream(): NodeJS.ReadableStream }>
    write(path: string, content: Uint8Array): Promise<unknown>
    writer(
      path: string,
      options: { readonly chunk: bigint; readonly concurrent: number }
    ): Promise<{ write(content: Uint8Array): Promise<void>; close(): Promise<unknown> }>
    list(path: string, options: { readonly recursive: boolean }): Promise<ReadonlyArray<{ path(): string }>>
  }
}
