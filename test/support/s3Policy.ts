/**
 * How tests of the S3 storage cut and retry.
 */
import * as Schedule from "effect/Schedule"
import { MiB } from "./bytes.js"

/** The smallest part that S3 allows. */
export const partSize = 5 * MiB

/** One attempt and three more. */
export const quick = Schedule.intersect(Schedule.spaced("5 millis"), Schedule.recurs(3))
