import { defineConfig } from "vitest/config";

// A busy machine is no failure: the default of 5 s is.
export default defineConfig({ test: { testTimeout: 60_000 } });
