// The live demo: what the networks make of a drawing or of a place on the map, while the reader changes it.

import { sheetOn } from "./drawing.mjs";
import { download, toPixels, toPlanes } from "./network.mjs";
import { textureOf, worldOn } from "./world.mjs";

const PASSES = 10;
const PATIENCE = 700; // ms of measuring after which fewer passes do

/** Load everything, and put what is computed here in the place of the finished examples. */
export async function open(demo) {
  const { section, part, say } = demo;
  const models = new URL(section.dataset.models, document.baseURI);
  const about = JSON.parse(new TextDecoder().decode(await download(new URL("demo.json", models))));
  const names = about.networks.map(({ name }) => name);
  const image = (file) => picture(new URL(file, models));
  const [sources, ...made] = await Promise.all(["sources", ...names].map((name) => image(`${name}.webp`)));
  const truths = about.truths === false ? null : await image("truths.webp");
  const [map, satellite] = about.world ? await Promise.all(["map.jpg", "satellite.jpg"].map(image)) : [];
  const example = (strip) => pixelsOf(strip, about.first * about.size, about.size);
  const ask = converse(new Worker(new URL("worker.mjs", import.meta.url), { type: "module" }), (bytes) =>
    say(`Loading: ${(bytes / 1e6).toFixed(1)} MB`));
  const { provider, levels, firstPass } = await ask("open", {
    models: models.href,
    networks: about.networks,
    example: example(sources),
    expected: Object.fromEntries(names.map((name, i) => [name, example(made[i])])),
    forced: new URLSearchParams(location.search).get("provider"),
  });

  const checked = (radios) => section.querySelector(`${radios} input:checked`).value;
  const state = { size: about.size, row: 0, column: 0, student: checked(".demo-students") };
  const sheet = sheetOn(part("source"), changed);
  const cards = Object.fromEntries(names.map((name) => [name, section.querySelector(`[data-network="${name}"]`)]));
  const canvasesOf = (name) => [cards[name], name === state.student ? part("student") : part(name)].filter(Boolean);

  // --- what the networks make of it ---

  let waiting = false;
  let running = null;
  /** Bring the pictures up to date: while a mark is drawn only the chosen student's, else every network's. */
  function refresh() {
    for (const name of names) for (const canvas of canvasesOf(name)) canvas.classList.add("demo-old");
    waiting = true;
    return (running ??= work().finally(() => (running = null)));
  }

  async function work() {
    try {
      while (waiting) {
        waiting = false;
        const { size } = state;
        const planes = toPlanes(sheet.pixels());
        const first = [state.student, "teacher"].filter((name) => names.includes(name));
        for (const name of sheet.drawing() ? [state.student] : new Set([...first, ...names])) {
          const { values } = await ask("run", { name, planes, width: size, height: size });
          if (size === state.size) show(name, toPixels(values, size, size));
          if (waiting) break;
        }
      }
    } catch (error) {
      say(`The networks stopped: ${error.message}. Reloading the page starts them again.`);
    }
  }

  function show(name, pixels) {
    for (const canvas of canvasesOf(name)) {
      draw(canvas, pixels);
      if (!waiting) canvas.classList.remove("demo-old");
    }
  }

  function changed() {
    if (truths) part("truth-name").textContent = sheet.untouched() ? about.domains[1] : "before you drew";
    return refresh();
  }

  // --- what they take ---

  const medians = {};
  /** Time the chosen student and the teacher, and say it below. */
  async function measure() {
    const { size, student } = state;
    const planes = toPlanes(sheet.pixels());
    const timed = [student, "teacher"].filter((name) => names.includes(name));
    for (const name of timed) {
      const times = [];
      for (let spent = 0; times.length < PASSES && spent < PATIENCE; spent += times.at(-1)) {
        times.push((await ask("run", { name, planes, width: size, height: size })).ms);
      }
      if (size !== state.size) return; // the reader has chosen another one meanwhile
      medians[name] = times.sort((a, b) => a - b)[times.length >> 1];
      section.querySelector(`[data-time="${name}"]`).textContent = `${milliseconds(medians[name])} here`;
    }
    const each = (values) => timed.map((name) => milliseconds(values[name])).join(" and ");
    const who = timed.length > 1 ? "Student and teacher take" : "The student takes";
    const where = provider === "webgpu" ? "this device's GPU (WebGPU)" : "one processor core (WebAssembly)";
    const most = Math.max(...Object.values(levels));
    const exact = about.networks.every(({ precision }) => precision === "fp32");
    part("caption").textContent = `${who} ${each(medians)} a picture on ${where}, the median of ${PASSES} passes or fewer; ` +
      `the very first pass, which also sets up memory, took ${each(firstPass)}. ` +
      (most ? `The pictures are those of PyTorch${exact ? "" : ", in half precision"}: they differ by at most ${most} of 255 grey levels.`
        : "The pictures are exactly those of PyTorch.");
  }

  // --- where it begins: an example, an empty sheet, or a place on the map ---

  function beginAt(row, column) {
    const { height, width } = about.world;
    state.row = Math.round(Math.min(Math.max(row, 0), height - state.size));
    state.column = Math.round(Math.min(Math.max(column, 0), width - state.size));
    part("name").textContent = world.frame(state.row, state.column, state.size);
    return begin(map, satellite);
  }

  function begin(from, to) {
    const { row, column, size } = state;
    sheet.begin(size, (pen) => (from ? pen.drawImage(from, -column, -row) : fill(pen, "white")));
    if (truths) part("truth").hidden = !to;
    if (to) draw(part("truth-canvas"), pixelsOf(to, column, size, row));
    return changed();
  }

  const world = about.world && worldOn(part("world"), about.world, map, {
    to: (row, column) => beginAt(row - state.size / 2, column - state.size / 2),
    by: (down, right, far) => {
      const step = far ? state.size : state.size / 8;
      return beginAt(state.row + down * step, state.column + right * step);
    },
  });
  demo.onExample = (value) => {
    if (world) {
      const [row, column] = about.world.places[value];
      return beginAt(row - state.size / 2, column - state.size / 2);
    }
    if (value === "empty") return begin();
    state.column = value * state.size;
    return begin(sources, truths);
  };
  demo.onStudent = async (name) => {
    state.student = name;
    draw(part("student"), cards[name].getContext("2d").getImageData(0, 0, state.size, state.size));
    await measure();
  };

  // --- tools ---

  const listen = (radios, choose) => {
    for (const radio of section.querySelectorAll(`input[name="${radios}-${about.task}"]`)) {
      radio.addEventListener("change", () => choose(radio));
      if (radio.checked) choose(radio);
    }
  };
  const styles = about.palette?.map(({ colour }) => colour)
    ?? Object.values(about.world.brushes).map((at) => textureOf(map, at, about.world.patch));
  if (about.palette) {
    const brush = apart(about.palette.map(({ colour }) => Number.parseInt(colour.slice(1), 16)), example(sources));
    section.querySelector(`input[name="brush-${about.task}"][value="${brush}"]`).checked = true;
  }
  listen("tool", ({ value }) => (sheet.tool = value));
  listen("brush", ({ value }) => (sheet.style = styles[value]));
  for (const [i, swatch] of section.querySelectorAll(".demo-colours canvas").entries()) fill(swatch.getContext("2d"), styles[i]);
  const width = () => (sheet.width = part("radius").value / 64);
  part("radius").addEventListener("input", width);
  width();
  part("undo").addEventListener("click", sheet.undo);
  part("clear").addEventListener("click", () => (world ? sheet.reset() : sheet.fill("white")));
  part("own")?.addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    try {
      const square = middleOf(await createImageBitmap(file), state.size);
      for (const radio of section.querySelectorAll(".demo-examples input")) radio.checked = false;
      part("name").textContent = file.name;
      state.row = state.column = 0;
      await begin(square);
    } catch {
      say(`The browser cannot read ${file.name}. Choose a JPEG, PNG or WebP.`);
    }
  });
  part("fill")?.addEventListener("click", () => sheet.fill());
  part("size")?.addEventListener("change", async ({ target }) => {
    const [row, column] = [state.row + state.size / 2, state.column + state.size / 2];
    state.size = Number(target.value);
    part("pixels").textContent = `${state.size}\u00a0×\u00a0${state.size}`;
    for (const place of section.querySelectorAll("[data-time]")) place.textContent = "";
    for (const place of section.querySelectorAll("[data-macs]")) place.textContent = cost(place.dataset.macs, about, state.size);
    await beginAt(row - state.size / 2, column - state.size / 2);
    await measure();
  });

  await demo.onExample(checked(".demo-examples"));
  for (const piece of section.querySelectorAll("canvas, [data-part=tools], [data-part=map], [data-part=empty], [data-part=sizes]")) {
    piece.hidden = false;
  }
  say(world ? "Live: click the map, or paint in the frame." : "Live: draw in the frame.");
  await measure();
}

// --- helpers ---

/** A worker as a function that asks it and waits for the answer. `onBytes` hears how many bytes have come in all. */
function converse(worker, onBytes) {
  const pending = new Map();
  let asked = 0;
  let bytes = 0;
  worker.onmessage = ({ data }) => {
    if ("bytes" in data) return onBytes((bytes += data.bytes));
    const { resolve, reject } = pending.get(data.id);
    pending.delete(data.id);
    data.error ? reject(new Error(data.error)) : resolve(data.result);
  };
  worker.onerror = (event) => {
    for (const { reject } of pending.values()) reject(new Error(event.message || "the worker could not be loaded"));
  };
  return (task, given) => new Promise((resolve, reject) => {
    pending.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, task, ...given });
  });
}

async function picture(url) {
  const image = Object.assign(new Image(), { src: url.href });
  await image.decode();
  return image;
}

/** A square of a picture, its left upper corner at `column` and `row`. */
function pixelsOf(image, column, size, row = 0) {
  const pen = Object.assign(document.createElement("canvas"), { width: size, height: size }).getContext("2d");
  pen.drawImage(image, -column, -row);
  return pen.getImageData(0, 0, size, size);
}

/** The middle square of a picture, at `size` pixels. */
function middleOf(image, size) {
  const side = Math.min(image.width, image.height);
  const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, size, size);
  return canvas;
}

/** Which of the colours, as 24-bit numbers, is farthest from the two that fill most of a picture: its strokes show on both. */
function apart(colours, { data }) {
  const counts = new Map();
  for (let i = 0; i < data.length; i += 4) {
    const colour = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  const filling = [...counts].sort(([, a], [, b]) => b - a).slice(0, 2);
  const distance = (a, b) => Math.hypot(...[16, 8, 0].map((bits) => ((a >> bits) & 255) - ((b >> bits) & 255)));
  const distances = colours.map((colour) => Math.min(...filling.map(([other]) => distance(colour, other))));
  return distances.indexOf(Math.max(...distances));
}

function draw(canvas, pixels) {
  if (canvas.width !== pixels.width) canvas.width = canvas.height = pixels.width;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function fill(pen, style) {
  pen.fillStyle = style;
  pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
}

const cost = (name, about, size) => `${shortCount(about.networks.find((network) => network.name === name).macs[size])} MACs`;

/** A count with three digits and a unit, as `i2i_lib.counts` writes it. */
function shortCount(number) {
  const [size, unit] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([size]) => number >= 0.9995 * size) ?? [1, ""];
  return `${(number / size).toPrecision(3)} ${unit}`;
}

const milliseconds = (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
