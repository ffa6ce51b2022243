import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: [".venv/", ".comfyui/", "build/"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2023, sourceType: "module" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  { files: ["js/**"], languageOptions: { globals: { ...globals.browser, LiteGraph: "readonly" } } },
  { files: ["tests/js/**"], languageOptions: { globals: globals.node } },
];
