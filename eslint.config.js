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

// The rooms of src/. In each: its folders of private code, the public module that each belongs to, and any others that
// may import it.
const rooms = {
  backends: {
    fileSystem: ["FileSystemStorage"],
    http: ["HttpStorage", "HuggingFaceStorage"],
    huggingFace: ["HuggingFaceStorage"],
    opfs: ["OpfsStorage"],
    s3: ["S3Storage"]
  },
  wrappers: {
    cache: ["StorageCache"],
    compression: ["StorageCompression"],
    encryption: ["StorageEncryption"],
    failover: ["StorageFailover"],
    limit: ["StorageLimit"],
    mirror: ["StorageMirror"]
  },
  weights: {
    modelChunks: ["ModelChunks"],
    safetensors: ["Safetensors", "ModelChunks"],
    tensorFlowIO: ["TensorFlowIO"],
    transformersCache: ["TransformersCache"]
  },
  server: { http: ["WeightServer"] },
  testing: { contract: ["StorageContract"] }
}

const byPath = { group: ["surfing-weights*"], message: "Import the module by its relative path." }

const portable = [
  {
    group: ["@effect/platform-node*", "@effect/cli*"],
    message: "src/ runs on any Effect platform: use @effect/platform and let the app provide the rest."
  },
  byPath
]

// What the private code of a module may import out of another room: compressed files are safetensors files.
const guests = { compression: "weights/safetensors" }

/** Forbids imports of folders of src/, as they are written in a file of src/ or of a folder in it. */
const without = (folders, message, except) => ({
  regex: `^\\.{1,2}/(\\.\\./)*${except === undefined ? "" : `(?!${except}/)`}(${folders.join("|")})/`,
  message
})

const restrict = (files, ...patterns) => ({
  files,
  rules: { "no-restricted-imports": ["error", { patterns: [...portable, command, ...patterns] }] }
})

const command = without(["command"], "src/command/ is a program over the library, which no module needs.")

const storage = without(["storage"], "src/storage/ is private to Storage.")

const restrictRoom = ([room, folders]) => {
  const others = (folder) =>
    without(
      Object.keys(rooms).filter((other) => other !== room),
      `src/${room}/ must not import another room: it may use only the modules in src/ and src/internal/.`,
      guests[folder]
    )
  const privateFolders = (module) =>
    Object.entries(folders).filter(([, users]) => !users.includes(module)).map(([folder, users]) => ({
      regex: `^\\.{1,2}/${folder}/`,
      message: `src/${room}/${folder}/ is private to ${users.join(" and ")}.`
    }))
  return [
    restrict([`src/${room}/**`], storage, others(), ...privateFolders()),
    ...Object.entries(folders).map(([folder, [owner]]) =>
      restrict(
        [`src/${room}/${owner}.ts`, `src/${room}/${folder}/**`],
        storage,
        others(folder),
        ...privateFolders(owner)
      )
    )
  ]
}

const noRoom = without(
  Object.keys(rooms),
  "The core and src/internal/ must not import a room. Storage may load a backend with import()."
)

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
    // The library takes modules one by one, not through barrels.
    files: ["src/**/*.ts"],
    rules: {
      "@effect/no-import-from-barrel-package": ["error", { packageNames: ["effect", "@effect/platform"] }],
      "max-lines-per-function": ["error", { max: 80 }]
    }
  },
  restrict(["src/*.ts", "src/internal/**"], storage, noRoom),
  restrict(["src/Storage.ts", "src/storage/**"], noRoom),
  restrict(["src/index*.ts"], storage),
  ...Object.entries(rooms).flatMap(restrictRoom),
  {
    // The command-line tool runs in Node, over the public modules.
    files: ["src/command/**"],
    rules: {
      "no-restricted-imports": ["error", {
        patterns: [
          byPath,
          without(
            ["storage", "internal", ...Object.values(rooms).flatMap(Object.keys)],
            "src/command/ uses the public modules only."
          )
        ]
      }]
    }
  }
)
