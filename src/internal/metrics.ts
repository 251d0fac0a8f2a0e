/**
 * Metrics that are updated by a plain call. Their labels are part of their keys: to add them with each update would cost
 * more than the update.
 */
import * as Metric from "effect/Metric"
import type * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricKey from "effect/MetricKey"
import * as MetricLabel from "effect/MetricLabel"

type Labels = Readonly<Record<string, string>>

const toLabels = (labels: Labels) => Object.entries(labels).map(([name, value]) => MetricLabel.make(name, value))

/** Counts up. */
export const counter = (name: string, description: string, labels: Labels): (count: number) => void => {
  const key = MetricKey.counter(name, { description, incremental: true })
  const metric = Metric.fromMetricKey(MetricKey.taggedWithLabels(key, toLabels(labels)))
  return (count) => metric.unsafeUpdate(count, [])
}

/** Counts values by size. */
export const histogram = (
  name: string,
  description: string,
  boundaries: MetricBoundaries.MetricBoundaries,
  labels: Labels
): (value: number) => void => {
  const key = MetricKey.histogram(name, boundaries, description)
  const metric = Metric.fromMetricKey(MetricKey.taggedWithLabels(key, toLabels(labels)))
  return (value) => metric.unsafeUpdate(value, [])
}
