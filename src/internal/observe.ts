export * from "./observability.js"
