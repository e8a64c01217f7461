// `node python_search.mjs PYODIDE STATIC < asked.json`: what the page's Python finds for each [teacher, budget].
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodide, folder] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodide}/pyodide.mjs`));
const { openPython } = await import(pathToFileURL(`${folder}/search/python.mjs`));
const { asked, library, teachers } = JSON.parse(readFileSync(0, "utf8"));
const session = readFileSync(`${folder}/search/session.py`, "utf8");
const python = await openPython(loadPyodide, { indexURL: `${pyodide}/` }, { library, session, teachers: JSON.stringify(teachers) });
const found = asked.map(([name, budget]) => JSON.parse(python.find(name, budget)));
const cell = python.run(asked[0][0], asked[0][1], "print(budget)\nbudget + nothing");
process.stdout.write(JSON.stringify({ found, cell }));
