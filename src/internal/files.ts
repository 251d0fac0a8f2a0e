export { allocate } from "./bytes.js"
