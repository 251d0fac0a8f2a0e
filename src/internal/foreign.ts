/**
 * A failure on its way through a storage that is not the storage's own: that of the source of a save, for instance, which
 * may look like one of a storage.
 */
export class Foreign<Err> {
  readonly error: Err
  constructor(error: Err) {
    this.error = error
  }
}
