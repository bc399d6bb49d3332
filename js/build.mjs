// Builds the bundles that are committed: the widget (an ES module), and the script of the report page.
// The same sources give the same bytes: nothing in a bundle names a time, a machine or a folder.
import { existsSync, readdirSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const BUNDLES = [
  { name: "panel", entry: "src/hosts/widget.ts", format: "esm", folder: "../explorer/view/static" },
  { name: "page", entry: "src/hosts/page.ts", format: "iife", folder: "../explorer/scene/static" },
];

for (const bundle of BUNDLES) {
  const folder = join(here, bundle.folder);
  await mkdir(folder, { recursive: true });
  const made = await build({
    absWorkingDir: here,
    entryPoints: { [bundle.name]: bundle.entry },
    outdir: folder,
    bundle: true,
    minify: true,
    format: bundle.format,
    target: "es2022",
    charset: "utf8",
    legalComments: "none", // third-party licences lie in a file of their own, whole
    logLevel: "warning",
    metafile: true,
    write: false,
  });
  for (const file of made.outputFiles) {
    refuseMarkup(file);
    await writeFile(file.path, file.contents);
  }
  await writeFile(join(folder, "THIRD-PARTY.txt"), await licences(made.metafile));
}

/** A page carries the bundle inside an element: what would end or open one there must not be in it. */
function refuseMarkup(file) {
  const found = /<\/(?:script|style)|<!--/i.exec(file.text);
  if (found)
    throw new Error(`${file.path} holds "${found[0]}": a page that carries it inline would break. Split that string.`);
}

/** Returns the licences of the packages that went into a bundle, and of those that came bundled inside them. */
async function licences(metafile) {
  const names = new Set();
  const add = async (name) => {
    if (names.has(name)) return;
    names.add(name);
    for (const inner of Object.keys((await manifest(name)).dependencies ?? {})) await add(inner);
  };
  for (const path of Object.keys(metafile.inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules\/)/.exec(path);
    if (found) await add(found[1]);
  }
  const parts = ["Third-party software in the bundle beside this file.\n"];
  for (const name of [...names].sort()) {
    const { version, license, repository } = await manifest(name);
    const folder = join(here, "node_modules", name);
    const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
    if (!file) throw new Error(`${name} has no licence file: it must not be bundled before that is cleared up.`);
    const home = (repository?.url ?? "").replace(/^git\+/, "");
    const text = (await readFile(join(folder, file), "utf8")).replace(/\r\n/g, "\n").trim();
    parts.push(`${"-".repeat(80)}\n${name} ${version}, ${license}${home && `, ${home}`}\n\n${text}\n`);
  }
  return parts.join("\n");
}

async function manifest(name) {
  const path = join(here, "node_modules", name, "package.json");
  if (!existsSync(path)) throw new Error(`${name} is not installed: run npm ci.`);
  return JSON.parse(await readFile(path, "utf8"));
}
