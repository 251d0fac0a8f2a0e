/**
 * `GET /metrics`: all metrics of the process in the text format of Prometheus, version 0.0.4. Names of storages are reduced to
 * their kinds, such as `Cache/S3`, as they may hold paths, hosts and buckets.
 * https://prometheus.io/docs/instrumenting/exposition_formats
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as MetricLabel from "effect/MetricLabel"
import type * as MetricPair from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Option from "effect/Option"
import { noSniff } from "./responses.js"

const contentType = "text/plain; version=0.0.4; charset=utf-8"

/** A name consists of letters, digits and underscores, and does not begin with a digit. */
const toName = (name: string): string => name.replaceAll(/[^a-zA-Z0-9_]/g, "_").replace(/^(?=\d)/, "_")

const escape = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")

const toValue = (value: number | bigint): string =>
  value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : String(value)

type Labels = ReadonlyArray<readonly [name: string, value: string]>

const line = (name: string, labels: Labels, value: number | bigint): string => {
  const shown = labels.map(([label, text]) => `${toName(label)}="${escape(text).replaceAll("\"", "\\\"")}"`)
  return `${name}${shown.length === 0 ? "" : `{${shown.join()}}`} ${toValue(value)}`
}

interface Family {
  readonly type: string
  readonly help: string
  readonly lines: Array<string>
}

const show = (pair: MetricPair.MetricPair.Untyped, publicName: PublicName): Family & { readonly name: string } => {
  const { description, name: raw, tags } = pair.metricKey
  const labels: Labels = tags.map(({ key, value }: MetricLabel.MetricLabel) => [
    key,
    key === "backend" ? publicName(value) : value
  ])
  const help = Option.getOrElse(description, () => "")
  const state = pair.metricState
  const name = toName(raw)
  if (MetricState.isCounterState(state)) {
    const isIncremental = "incremental" in pair.metricKey.keyType && pair.metricKey.keyType.incremental === true
    return isIncremental
      ? { name: `${name}_total`, type: "counter", help, lines: [line(`${name}_total`, labels, state.count)] }
      : { name, type: "gauge", help, lines: [line(name, labels, state.count)] }
  }
  if (MetricState.isGaugeState(state)) return { name, type: "gauge", help, lines: [line(name, labels, state.value)] }
  if (MetricState.isFrequencyState(state)) {
    const lines = [...state.occurrences].map(([key, count]) => line(`${name}_total`, [...labels, ["key", key]], count))
    return { name: `${name}_total`, type: "counter", help, lines }
  }
  if (MetricState.isHistogramState(state)) {
    // Effect has no bucket for values above all boundaries; Prometheus requires one.
    const buckets = [...state.buckets].filter(([boundary]) => boundary !== Infinity)
    return {
      name,
      type: "histogram",
      help,
      lines: [
        ...[...buckets, [Infinity, state.count] as const].map(([boundary, count]) =>
          line(`${name}_bucket`, [...labels, ["le", toValue(boundary)]], count)
        ),
        line(`${name}_sum`, labels, state.sum),
        line(`${name}_count`, labels, state.count)
      ]
    }
  }
  if (MetricState.isSummaryState(state)) {
    return {
      name,
      type: "summary",
      help,
      lines: [
        ...[...state.quantiles].flatMap(([quantile, value]) =>
          Option.isSome(value) ? [line(name, [...labels, ["quantile", toValue(quantile)]], value.value)] : []
        ),
        line(`${name}_sum`, labels, state.sum),
        line(`${name}_count`, labels, state.count)
      ]
    }
  }
  return { name, type: "untyped", help, lines: [] }
}

export const makeMetrics = (): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const publicName = makePublicName()
  return Effect.map(
    Metric.snapshot,
    (pairs) => HttpServerResponse.text(format(pairs, publicName), { contentType, headers: noSniff })
  )
}

type PublicName = (backend: string) => string

/** Storages of one kind are numbered, in the order in which they are seen. */
const makePublicName = (): PublicName => {
  const known = new Map<string, string>()
  const counts = new Map<string, number>()
  return (backend) => {
    const found = known.get(backend)
    if (found !== undefined) return found
    const kind = kindOf(backend)
    const count = (counts.get(kind) ?? 0) + 1
    counts.set(kind, count)
    const name = count === 1 ? kind : `${kind} ${count}`
    known.set(backend, name)
    return name
  }
}

/** Of `Cache(Prefix(models/, S3(bucket)))` it is `Cache/Prefix/S3`. */
const kindOf = (backend: string): string =>
  /^\w+$/.test(backend)
    ? backend
    : [...backend.matchAll(/(?:^|\(|, )([A-Za-z]\w*(?=\()|Memory(?=[,)]))/g)].map(([, kind]) => kind).join("/") ||
      "storage"

/** The metrics as text, grouped by name. */
const format = (pairs: Iterable<MetricPair.MetricPair.Untyped>, publicName: PublicName): string => {
  const families = new Map<string, Family>()
  for (const pair of pairs) {
    const { name, ...family } = show(pair, publicName)
    const known = families.get(name)
    if (known === undefined) families.set(name, family)
    else if (known.type === family.type) known.lines.push(...family.lines)
  }
  return [...families].map(([name, { help, lines, type }]) =>
    `${help === "" ? "" : `# HELP ${name} ${escape(help)}\n`}# TYPE ${name} ${type}\n${lines.join("\n")}\n`
  ).join("")
}
