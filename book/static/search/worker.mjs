// Python runs beside the page, so that neither loading nor a reader's endless loop stops it.
import { openPython } from "./python.mjs";

const HERE = new URL("../", import.meta.url);
const PYODIDE = new URL("pyodide/", HERE).href;
let python;

// The WebAssembly is stored compressed, since many servers do not compress it.
const fetchAsIs = self.fetch;
self.fetch = async (url, ...options) => {
  if (!String(url).endsWith(".asm.wasm")) return fetchAsIs(url, ...options);
  const packed = await fetchAsIs(`${url}.gzip`, ...options);
  if (!packed.ok) return packed;
  const unpacked = packed.body.pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked, { headers: { "Content-Type": "application/wasm" } });
};

async function text(path) {
  const response = await fetch(new URL(path, HERE));
  if (!response.ok) throw new Error(`${path} is missing (status ${response.status})`);
  return response.text();
}

self.onmessage = async ({ data: { id, call, given } }) => {
  try {
    if (call === "open") {
      const [{ loadPyodide }, library, teachers, session] = await Promise.all([
        import(`${PYODIDE}pyodide.mjs`), text("searched/library.json"), text("searched/teachers.json"), text("search/session.py"),
      ]);
      python = await openPython(loadPyodide, { indexURL: PYODIDE }, { library: JSON.parse(library), session, teachers });
      self.postMessage({ id, result: teachers });
    } else {
      self.postMessage({ id, result: python[call](...given) });
    }
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
