/**
 * The shape of the house (CONTRIBUTING.md, "Layers"): imports go downhill only, type imports included. Run by `npm run layers`.
 */

/** From the ground up: a layer may import those before it, and itself. */
const layers = ["base", "engine", "optim", "models", "sampling", "targets", "tuners", "run", "cli"];

/** Tests look wherever they need to; no rule about layers is for them. */
const tests = "\\.test\\.ts$";
/** What may use Node: files that say so in their name, the command line, and the entry point for Node. */
const forNode = "\\.node\\.ts$|^src/cli/|^src/node\\.ts$";

const downhill = layers.slice(0, -1).map((layer, height) => ({
  name: `downhill-${layer}`,
  severity: "error",
  comment: `${layer} may import only ${layers.slice(0, height + 1).join(", ")}`,
  from: { path: `^src/${layer}/`, pathNot: tests },
  to: { path: `^src/(${layers.slice(height + 1).join("|")})/` },
}));

module.exports = {
  forbidden: [
    ...downhill,
    {
      name: "known-layers",
      severity: "error",
      comment: `a folder of src that is none of ${layers.join(", ")} has no place in the order`,
      from: { path: "^src/", pathNot: `^src/(${layers.join("|")})/|^src/(index|node)(\\.test)?\\.ts$` },
      to: {},
    },
    {
      name: "entries-are-the-top",
      severity: "error",
      comment: "index.ts and node.ts are for users; inside, import the file itself",
      from: { path: "^src/", pathNot: tests },
      to: { path: "^src/(index|node)\\.ts$" },
    },
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    {
      name: "node-only-where-named",
      severity: "error",
      comment: "only *.node.ts files, src/cli and src/node.ts may use Node's modules, or packages and files that need Node",
      from: { path: "^src/", pathNot: `${forNode}|${tests}` },
      to: { path: "\\.node\\.ts$|^src/node\\.ts$|node_modules/(onnxruntime-node|jiti|commander)/" },
    },
    {
      name: "node-modules-only-where-named",
      severity: "error",
      comment: "only *.node.ts files, src/cli and src/node.ts may import node:*",
      from: { path: "^src/", pathNot: `${forNode}|${tests}` },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "browser-safe-index",
      severity: "error",
      comment: "nothing that index.ts leads to may need Node",
      from: { path: "^src/index\\.ts$" },
      to: { reachable: true, path: "\\.node\\.ts$|node_modules/(onnxruntime-node|jiti|commander)/" },
    },
    {
      name: "no-tests-in-the-product",
      severity: "error",
      from: { path: "^src/", pathNot: tests },
      to: { path: "^tests/|\\.test\\.ts$" },
    },
    {
      name: "declared-packages-only",
      severity: "error",
      comment: "what is shipped may use only the packages under dependencies",
      from: { path: "^src/", pathNot: tests },
      to: { dependencyTypes: ["npm-dev", "npm-no-pkg", "npm-unknown"] },
    },
    { name: "resolvable", severity: "error", from: { pathNot: tests }, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    // Type imports are arrows too.
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "types", "node", "default"] },
  },
};
