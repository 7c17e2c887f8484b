// Bundles src/ and style.css into the template dist/signup.html, which `blockhost-generate-signup` carries and fills in.
//   node build.mjs           writes the template
//   node build.mjs --check   bundles again and fails when what is committed differs
// Both compare the ABI that the page uses with the compiled contracts first.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const read = (name) => readFileSync(join(here, name), "utf8");
const fail = (text) => {
  console.error(text);
  process.exit(1);
};

async function bundle(entry, options) {
  const result = await build({
    entryPoints: [join(here, entry)],
    absWorkingDir: here,
    bundle: true,
    write: false,
    target: ["es2022"],
    charset: "ascii",
    // Said once for all, by `licences`.
    legalComments: "none",
    metafile: true,
    logLevel: "error",
    ...options,
  });
  return { text: result.outputFiles[0].text, inputs: Object.keys(result.metafile.inputs) };
}

/** What the licences of the bundled packages ask to be told. All are MIT: one that is not has to be looked at first. */
function licences(inputs) {
  const names = new Set(inputs.flatMap((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1] ?? []));
  let permission = "";
  const lines = [...names].sort().map((name) => {
    const text = read(`node_modules/${name}/LICENSE`);
    const copyright = text.match(/^Copyright .*$/m)?.[0];
    permission = text.slice(text.indexOf("Permission is hereby granted"));
    if (!text.startsWith("The MIT License") || !copyright || !permission.startsWith("Permission")) fail(`${name} has another licence`);
    return `${name}: ${copyright}`;
  });
  return `Bundled, under the MIT License:\n${lines.join("\n")}\n\n${permission.trim()}`;
}

/** Types and names of a function or error, without what compilers add. */
function shape({ type, name, inputs, outputs }) {
  const part = ({ type, name, indexed }) => [type, name, indexed ?? false];
  return JSON.stringify([type, name, (inputs ?? []).map(part), (outputs ?? []).map(part)]);
}

async function checkAbi() {
  const { text: code } = await bundle("src/abi.ts", { format: "esm" });
  const used = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  const compiled = (name) =>
    new Set(JSON.parse(readFileSync(join(here, `../contracts/artifacts/${name}.json`), "utf8")).abi.map(shape));
  const pairs = [
    ["BlockhostSubscriptions", [...used.SUBSCRIPTIONS, ...used.CONTRACT_ERRORS, used.SUBSCRIPTION_CREATED]],
    ["AccessCredentialNFT", used.CREDENTIALS],
    ["MockUSD", [...used.TOKEN, ...used.TOKEN_ERRORS]],
  ];
  for (const [contract, parts] of pairs) {
    const known = compiled(contract);
    const wrong = parts.filter((part) => !known.has(shape(part))).map((part) => part.name);
    if (wrong.length > 0) fail(`src/abi.ts is not what ${contract} is compiled to: ${wrong.join(", ")}`);
  }
}

const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** Puts texts in the place of their marks. */
function fill(page, texts) {
  for (const [mark, text] of texts) {
    const parts = page.split(`@@${mark}@@`);
    if (parts.length !== 2) fail(`page.html has the mark @@${mark}@@ ${parts.length - 1} times instead of once`);
    page = parts.join(text);
  }
  return page;
}

await checkAbi();
const main = await bundle("src/main.ts", { format: "iife", minify: true });
const script = main.text.trim();
const style = (await transform(read("style.css"), { loader: "css", minify: true, charset: "ascii" })).code.trim();
for (const [name, text] of [["script", script], ["style", style]]) {
  // A mark would be filled in, and the tag end or a comment would end the element too early.
  if (/@@|<\/s|<!--/i.test(text)) fail(`the ${name} holds text that cannot stand in a page`);
}
const page = fill(read("page.html"), [
  ["script-hash", hash(script)],
  ["style-hash", hash(style)],
  ["style", style],
  ["script", script],
  ["licences", licences(main.inputs)],
]);

const path = join(here, "dist/signup.html");
if (process.argv.includes("--check")) {
  if (!existsSync(path) || readFileSync(path, "utf8") !== page) {
    fail('dist/signup.html is out of date; run "node build.mjs" and commit the result');
  }
  console.error("dist/signup.html matches its sources");
} else {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, page);
  console.error(`wrote dist/signup.html: ${page.length} bytes`);
}
