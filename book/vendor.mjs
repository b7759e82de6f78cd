// Copies what the pages load (MathJax, require.js, the Jupyter widget manager) into book/_static/vendor, from npm at the
// versions of package-lock.json, so that no request leaves the book:   node book/vendor.mjs
// The packages are unpacked under _build/npm; book/_static/vendor is written whole or not at all, and git ignores it.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const book = path.dirname(fileURLToPath(import.meta.url));
const work = path.join(book, "..", "_build", "npm");
const modules = path.join(work, "node_modules");
const vendor = path.join(book, "_static", "vendor");

fs.mkdirSync(work, { recursive: true });
for (const name of ["package.json", "package-lock.json"]) fs.copyFileSync(path.join(book, name), path.join(work, name));
execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], {
  cwd: work, stdio: "inherit", shell: process.platform === "win32", // there npm is a script, which only a shell runs
});

const fresh = fs.mkdtempSync(path.join(work, "vendor-"));
const copy = (from, to) => fs.cpSync(path.join(modules, from), path.join(fresh, to), { recursive: true });
copy("requirejs/require.js", "require.js");
copy("mathjax/es5/tex-mml-chtml.js", "mathjax/tex-mml-chtml.js");
copy("mathjax/es5/output/chtml/fonts/woff-v2", "mathjax/output/chtml/fonts/woff-v2");
copy("mathjax/es5/input/tex/extensions", "mathjax/input/tex/extensions"); // \cancel, \boldsymbol ... are loaded on first use
const manager = "@jupyter-widgets/html-manager/dist";
copy(`${manager}/embed-amd.js`, `${manager}/embed-amd.js`);
for (const font of fs.readdirSync(path.join(modules, manager)).filter((name) => name.endsWith(".woff2"))) {
  copy(`${manager}/${font}`, `${manager}/${font}`);
  copy(`${manager}/${font}`, `@jupyter-widgets/${font}`); // where its style rules look, two folders up
}
copy("mathjax/LICENSE", "mathjax/LICENSE");
copy(`${manager}/embed.js.LICENSE.txt`, `${manager}/LICENSE.txt`);
const { dependencies } = JSON.parse(fs.readFileSync(path.join(book, "package.json"), "utf8"));
fs.writeFileSync(path.join(fresh, "versions.json"), JSON.stringify(dependencies, null, 2) + "\n"); // last: says that all is there

fs.rmSync(vendor, { recursive: true, force: true });
fs.cpSync(fresh, vendor, { recursive: true });
fs.rmSync(fresh, { recursive: true });
console.log(`MathJax and the widget manager stand in ${path.relative(process.cwd(), vendor)}: the book opens offline.`);
