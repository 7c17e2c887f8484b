// Compiles contracts/ with the solc of package-lock.json and writes ABI and bytecode to artifacts/.
//   node build.mjs           writes the artifacts
//   node build.mjs --check   recompiles and fails when what is committed differs
import { readFileSync, readdirSync, mkdirSync, writeFileSync, existsSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const here = dirname(fileURLToPath(import.meta.url));
const sourcesDir = join(here, "contracts");
const artifactsDir = join(here, "artifacts");
const check = process.argv.includes("--check");

function solidityFiles(dir) {
  return readdirSync(dir).sort().flatMap((name) => {
    const path = join(dir, name);
    if (statSync(path).isDirectory()) return solidityFiles(path);
    return name.endsWith(".sol") ? [path] : [];
  });
}

const files = solidityFiles(sourcesDir).map((path) => relative(here, path));
const input = {
  language: "Solidity",
  sources: Object.fromEntries(files.map((name) => [name, { content: readFileSync(join(here, name), "utf8") }])),
  settings: {
    optimizer: { enabled: true, runs: 200 },
    // The oldest rules that OpenZeppelin 5 compiles for: chains that lag behind can still run the result.
    evmVersion: "cancun",
    // No hash of sources and paths at the end of the code: the same sources give the same bytes anywhere.
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};

function findImport(path) {
  const file = join(here, "node_modules", path);
  return existsSync(file) ? { contents: readFileSync(file, "utf8") } : { error: `not found: ${path} (run npm ci)` };
}

const output = JSON.parse(solc.compile(JSON.stringify(input), { import: findImport }));
for (const message of output.errors ?? []) console.error(message.formattedMessage);
if ((output.errors ?? []).some((message) => message.severity === "error")) process.exit(1);

if (!check) mkdirSync(artifactsDir, { recursive: true });
const stale = [];
for (const file of files) {
  for (const [name, contract] of Object.entries(output.contracts[file] ?? {})) {
    // Interfaces have no code; nobody deploys them.
    if (!contract.evm.bytecode.object) continue;
    const artifact = {
      contractName: name,
      sourceName: file,
      compiler: solc.version(),
      abi: contract.abi,
      bytecode: "0x" + contract.evm.bytecode.object,
    };
    const text = JSON.stringify(artifact, null, 2) + "\n";
    const path = join(artifactsDir, `${name}.json`);
    if (!check) {
      writeFileSync(path, text);
      console.error(`wrote ${relative(here, path)}: ${contract.evm.bytecode.object.length / 2} bytes of code`);
    } else if (!existsSync(path) || readFileSync(path, "utf8") !== text) {
      stale.push(relative(here, path));
    }
  }
}
if (check) {
  if (stale.length > 0) {
    console.error(`out of date: ${stale.join(", ")}; run "node build.mjs" and commit the result`);
    process.exit(1);
  }
  console.error("artifacts match their sources");
}
