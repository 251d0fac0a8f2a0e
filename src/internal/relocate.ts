export { withPlace as relocate } from "./errors.js"
