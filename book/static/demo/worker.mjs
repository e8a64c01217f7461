// A student and its teacher beside the page, so that it stays alive while they compute.

import { download, largestDifference, loadRuntime, openNetwork, toPlanes } from "./network.mjs";

const TOLERANCE = { fp32: 1e-3, fp16: 5e-2 }; // from PyTorch, of values in [-1, 1]
const networks = {};

const tasks = {
  /** Fetch everything, and open the networks on the GPU if they compute there what PyTorch does, else on the CPU. */
  async open({ models, about, example, forced }) {
    const count = (bytes) => postMessage({ bytes });
    const ort = await loadRuntime(count);
    const files = {};
    for (const name of Object.keys(about.networks)) {
      files[name] = await download(new URL(`${name}.onnx`, models), count);
      const expected = await download(new URL(`${name}.f32`, models), count);
      files[`expected ${name}`] = new Float32Array(expected.buffer);
    }
    const planes = toPlanes(example);
    let found;
    for (const provider of forced ? [forced] : (await hasGpu(about)) ? ["webgpu", "wasm"] : ["wasm"]) {
      try {
        const differences = {};
        for (const [name, { precision }] of Object.entries(about.networks)) {
          networks[name] = await openNetwork(ort, files[name].slice(), provider);
          const made = await networks[name].run(planes, example.width, example.height);
          differences[name] = largestDifference(made, files[`expected ${name}`]);
          if (!(differences[name] <= TOLERANCE[precision])) {
            throw new Error(`the ${name} computes something else here (difference ${differences[name]})`);
          }
        }
        return { provider, differences };
      } catch (error) {
        found = error;
      }
    }
    throw found;
  },

  async run({ name, planes, width, height }) {
    const started = performance.now();
    const values = await networks[name].run(planes, width, height);
    return { values, ms: performance.now() - started };
  },
};

/** Whether there is a real GPU that can do the networks' arithmetic; one imitated in software is far slower than none. */
async function hasGpu({ networks }) {
  const gpu = await navigator.gpu?.requestAdapter().catch(() => null);
  const half = Object.values(networks).some(({ precision }) => precision === "fp16");
  return gpu && !gpu.info?.isFallbackAdapter && (!half || gpu.features.has("shader-f16"));
}

async function answer(data) {
  try {
    postMessage({ id: data.id, result: await tasks[data.task](data) });
  } catch (error) {
    postMessage({ id: data.id, error: error.message ?? String(error) });
  }
}

let before = Promise.resolve(); // one at a time: a network must not be run twice at once
onmessage = ({ data }) => {
  before = before.then(() => answer(data));
};
