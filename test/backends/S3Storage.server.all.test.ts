/**
 * The fast tests of S3Storage again, on a real S3 server, where nothing is skipped that the emulator cannot do.
 */
import "./S3Storage.credentials.test.js"
import "./S3Storage.prefix.test.js"
import "./S3Storage.uploads.test.js"
