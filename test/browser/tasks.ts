/**
 * Tasks that a test gives to a page, or to a worker with the same script, by name and with options that are JSON. So are their
 * results.
 */
import { Effect, Logger } from "effect"

type Tasks = Readonly<Record<string, (options: never) => Effect.Effect<unknown, unknown>>>

interface Message {
  readonly task: string
  readonly options: never
}

interface Scope {
  readonly document?: object
  readonly addEventListener: (type: "message", listen: (event: { readonly data: Message }) => void) => void
  readonly postMessage: (message: { readonly result?: string; readonly error?: string }) => void
}

export const offer = (tasks: Tasks): void => {
  const perform = ({ options, task }: Message): Promise<string> =>
    Effect.runPromise(
      Effect.suspend(() => tasks[task]?.(options) ?? Effect.die(new Error(`there is no task ${task}`))).pipe(
        Effect.map((result) => JSON.stringify(result ?? null)),
        Effect.provide(Logger.remove(Logger.defaultLogger))
      )
    )
  const scope = globalThis as unknown as Scope
  // A worker has no document.
  if (scope.document !== undefined) Object.assign(globalThis, { perform })
  else {
    scope.addEventListener("message", ({ data }) =>
      void perform(data).then(
        (result) => scope.postMessage({ result }),
        (error: unknown) => scope.postMessage({ error: String(error) })
      ))
  }
}
