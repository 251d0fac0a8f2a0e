/**
 * How a storage on a bucket shows itself.
 */

export const nameOf = ({ bucket, prefix = "" }: { readonly bucket: string; readonly prefix?: string | undefined }) =>
  `S3(${bucket}${prefix === "" ? "" : `/${prefix}`})`
