import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const src = fileURLToPath(new URL("./src", import.meta.url))

export default defineConfig({
  test: { include: ["test/**/*.test.ts"] },
  resolve: {
    alias: [
      { find: /^surfing-weights$/, replacement: `${src}/index.ts` },
      { find: /^surfing-weights\/(.*Storage)$/, replacement: `${src}/backends/$1.ts` }
    ]
  }
})
