// The networks beside the page, so that it stays alive while they compute.

import { download, loadRuntime, openNetwork, toPixels, toPlanes } from "./network.mjs";

const TOLERANCE = { fp32: 1, fp16: 6 }; // from PyTorch's picture, of levels from 0 to 255
const running = {};

const tasks = {
  /** Fetch everything, and open the networks on the GPU if they make the pictures there that PyTorch made, else on the CPU. */
  async open({ models, networks, example, expected, forced }) {
    const count = (bytes) => postMessage({ bytes });
    const ort = await loadRuntime(count);
    const files = {};
    for (const { name } of networks) files[name] = await download(new URL(`${name}.onnx`, models), count);
    const planes = toPlanes(example);
    const { width, height } = example;
    let found;
    for (const provider of forced ? [forced] : (await hasGpu(networks)) ? ["webgpu", "wasm"] : ["wasm"]) {
      try {
        const levels = {};
        const firstPass = {};
        for (const { name, precision } of networks) {
          running[name] = await openNetwork(ort, files[name].slice(), provider);
          const { values, ms } = await tasks.run({ name, planes, width, height });
          const made = toPixels(values, width, height).data;
          firstPass[name] = ms;
          levels[name] = expected[name].data.reduce((most, value, i) => Math.max(most, Math.abs(value - made[i])), 0);
          if (!(levels[name] <= TOLERANCE[precision])) {
            throw new Error(`the network ${name} makes another picture here (${levels[name]} levels of 255 apart)`);
          }
        }
        return { provider, levels, firstPass };
      } catch (error) {
        found = error;
      }
    }
    throw found;
  },

  async run({ name, planes, width, height }) {
    const started = performance.now();
    const values = await running[name].run(planes, width, height);
    return { values, ms: performance.now() - started };
  },
};

/** Whether there is a real GPU that can do the networks' arithmetic; one imitated in software is far slower than none. */
async function hasGpu(networks) {
  const gpu = await navigator.gpu?.requestAdapter().catch(() => null);
  const half = networks.some(({ precision }) => precision === "fp16");
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
