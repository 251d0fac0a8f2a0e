/**
 * What is known of the objects that were looked at last: their forms, and the headers of compressed files.
 */
import { LRUCache } from "lru-cache"
import type { ObjectInfo } from "../../StorageBackend.js"
import type { CompressedFile } from "../../weights/safetensors/compressed/originalFile.js"
import type { Form } from "./forms.js"

/** The form of one version of an object. */
export interface Known {
  readonly etag: string
  /** In how many bytes it is stored. */
  readonly stored: number
  readonly form: Form
}

interface OpenedFile {
  readonly etag: string
  readonly file: CompressedFile
}

const maxForms = 10_000

/** Of headers as they are in a file; in memory they take a few times that. */
const maxHeaderBytes = 16 * 1024 * 1024

export class KnownForms {
  private readonly forms = new LRUCache<string, Known>({ max: maxForms })
  private readonly files = new LRUCache<string, OpenedFile>({
    maxSize: maxHeaderBytes,
    sizeCalculation: ({ file }) => file.original.header.byteLength
  })

  /** The form of the version that was looked at last. */
  last(key: string): Known | undefined {
    return this.forms.get(key)
  }

  formOf(key: string, etag: string): Form | undefined {
    const known = this.forms.get(key)
    return known?.etag === etag ? known.form : undefined
  }

  put({ etag, key, size }: ObjectInfo, form: Form): Known {
    const known = { etag, stored: size, form }
    this.forms.set(key, known)
    return known
  }

  fileOf(key: string, etag: string): CompressedFile | undefined {
    const known = this.files.get(key)
    return known?.etag === etag ? known.file : undefined
  }

  putFile(key: string, etag: string, file: CompressedFile): void {
    this.files.set(key, { etag, file })
  }
}
