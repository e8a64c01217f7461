// Networks in the browser: ONNX Runtime Web, pictures in, pictures out. Nothing here knows the page.

const RUNTIME = new URL("../onnxruntime/", import.meta.url);

/** The runtime, fetched once. Its WebAssembly is stored compressed, since many servers do not compress it. */
export async function loadRuntime(onBytes = () => {}) {
  const ort = await import(new URL("ort.webgpu.bundle.min.mjs", RUNTIME));
  if (!ort.env.wasm.wasmBinary) {
    const packed = await download(new URL("ort-wasm-simd-threaded.asyncify.wasm.gzip", RUNTIME), onBytes);
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    ort.env.wasm.wasmBinary = await new Response(unpacked).arrayBuffer();
    ort.env.wasm.numThreads = 1; // more would need headers that a static site cannot send
    ort.env.logLevel = "error";
  }
  return ort;
}

/** A file's bytes; `onBytes` hears how many came with each part of it. */
export async function download(url, onBytes = () => {}) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname.split("/").pop()} is missing (status ${response.status})`);
  const parts = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    onBytes(value.length);
  }
}

/** A network on "webgpu" or "wasm": `run` takes and gives planes [3, height, width] of values in [-1, 1]. */
export async function openNetwork(ort, bytes, provider) {
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [provider] });
  return {
    provider,
    async run(planes, width, height) {
      const source = new ort.Tensor("float32", planes, [1, 3, height, width]);
      const { image } = await session.run({ source });
      const values = await image.getData();
      source.dispose();
      image.dispose();
      return values;
    },
    close: () => session.release(),
  };
}

/** Pixels of a canvas as planes, and back. */
export function toPlanes({ data, width, height }) {
  const planes = new Float32Array(3 * width * height);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < width * height; i++) planes[c * width * height + i] = data[4 * i + c] / 127.5 - 1;
  }
  return planes;
}

export function toPixels(planes, width, height) {
  const pixels = new ImageData(width, height);
  pixels.data.fill(255);
  for (let c = 0; c < 3; c++) {
    // The array clamps, and rounds to the nearest.
    for (let i = 0; i < width * height; i++) pixels.data[4 * i + c] = 127.5 * (planes[c * width * height + i] + 1);
  }
  return pixels;
}

