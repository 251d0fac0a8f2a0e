import effect from "@effect/eslint-plugin"
import { defineConfig } from "eslint/config"
import tseslint from "typescript-eslint"

const format = {
  lineWidth: 120,
  indentWidth: 2,
  semiColons: "asi",
  quoteStyle: "alwaysDouble",
  trailingCommas: "never",
  operatorPosition: "maintain",
  "arrowFunction.useParentheses": "force"
}

export default defineConfig(
  { ignores: [".*/**", "dist", "docs", "coverage"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: ["**/*.{ts,js}"],
    plugins: { "@effect": effect },
    rules: { "@effect/dprint": ["error", { config: format }] }
  },
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/no-non-null-assertion": "error",
      // The compiler reports these.
      "@typescript-eslint/no-unused-vars": "off"
    }
  },
  {
    // The library takes modules one by one, not through barrels, and runs on any Effect platform.
    files: ["src/**/*.ts"],
    rules: {
      "@effect/no-import-from-barrel-package": ["error", { packageNames: ["effect", "@effect/platform"] }],
      "no-restricted-imports": ["error", { patterns: ["@effect/platform-node*", "surfing-weights*"] }]
    }
  }
)
