/**
 * What the contract uses of Vitest, which itself runs on Node only.
 */
import { JestAsymmetricMatchers, JestChaiExpect, JestExtend } from "@vitest/expect"
import * as chai from "chai"

chai.use(JestExtend)
chai.use(JestChaiExpect)
chai.use(JestAsymmetricMatchers)

export const { assert, expect } = chai

/** Only the suite has tests, which is not run here. */
export const describe = undefined
export const it = undefined
