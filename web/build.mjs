// Bundles each src/<kind>.js and the style sheet into the folder that is given, with the licences
// of the packages that went in. Usage: node build.mjs FOLDER
import { build } from "esbuild";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2];
mkdirSync(folder, { recursive: true });
process.chdir(here);

const kinds = readdirSync("src").filter((name) => name.endsWith(".js"));
const result = await build({
  entryPoints: [...kinds, "page.css"].map((name) => join("src", name)),
  outdir: folder,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2020"],
  charset: "ascii", // the bytes of a script are what its hash in the page says
  legalComments: "none", // the licences stand in a file of their own
  metafile: true,
  logLevel: "warning",
});

const LICENCE = /^(licen[cs]e|copying)(\.|-|$)/i;
const packages = new Set();
for (const path of Object.keys(result.metafile.inputs)) {
  const found = path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found) packages.add(found[1]);
}

// Many packages have one licence word by word: it is said once, below the names of all of them.
const texts = new Map();
for (const name of [...packages].sort()) {
  const root = join("node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const file = readdirSync(root).find((entry) => LICENCE.test(entry));
  if (!file || !existsSync(join(root, file))) throw new Error(`${name} has no licence file`);
  const text = readFileSync(join(root, file), "utf8").trim();
  texts.set(text, [...(texts.get(text) ?? []), `${name} ${version} (${license})`]);
}
const notices = [...texts].map(([text, names]) => `${names.join("\n")}\n\n${text}\n`);
writeFileSync(
  join(folder, "LICENSES.txt"),
  ["Pages that Penstock makes contain these packages.\n", ...notices].join(`\n${"-".repeat(80)}\n\n`),
);
