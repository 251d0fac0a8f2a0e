/**
 * A tracer that notes the spans it makes.
 */
import { Effect, Tracer } from "effect"

/** The tracer of the context, and each span from now on, in the order in which they begin. */
export const recordingTracer = Effect.map(Effect.tracer, (native) => {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span: (...args) => {
      const span = native.span(...args)
      spans.push(span)
      return span
    },
    context: (f, fiber) => native.context(f, fiber)
  })
  return { spans, tracer }
})
