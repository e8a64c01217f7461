// The live demo: choose a place or paint one, and see what a student and its teacher make of it.
// Nothing is fetched before the reader presses the button, and nothing leaves the browser.
{
  const HERE = new URL(".", document.currentScript.src);
  const PASSES = 10;
  const PATIENCE = 1500; // ms of measuring after which fewer passes do

  for (const section of document.querySelectorAll(".demo")) prepare(section);

  /** Why the demo cannot run here; empty if it can. */
  function obstacle() {
    if (location.protocol === "file:") {
      return "This page was opened from a folder, and from there browsers let no page load a network. " +
        "Run “make serve” where the book was made, and open http://localhost:8000/demo.html instead.";
    }
    if (typeof WebAssembly === "undefined" || typeof DecompressionStream === "undefined") {
      return "This browser cannot run the networks: it has no WebAssembly, or is too old. " +
        "Any current browser has it, unless a setting (such as a lockdown mode) switches it off.";
    }
    return "";
  }

  function prepare(section) {
    const part = (name) => section.querySelector(`[data-part="${name}"]`);
    const say = (text) => (part("status").textContent = text);
    const button = part("load");
    button.disabled = Boolean(obstacle());
    say(obstacle());
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await open(section, part, say);
        button.hidden = true;
      } catch (error) {
        console.warn(error);
        say(`The networks could not be started: ${error.message}. Reloading the page may help; so may another browser.`);
        button.disabled = false;
      }
    });
  }

  async function open(section, part, say) {
    const models = new URL(section.dataset.models, document.baseURI);
    const about = await (await fetch(new URL("demo.json", models))).json();
    const { toPlanes, toPixels } = await import(new URL("network.mjs", HERE));
    const names = about.world ? ["map.jpg", "satellite.jpg"] : ["sources.png", "truths.png"];
    const [sources, truths, examples] = await Promise.all([...names, "sources.png"].map((name) => picture(new URL(name, models))));
    const ask = converse(new Worker(new URL("worker.mjs", HERE), { type: "module" }), (bytes) =>
      say(`Loading: ${(bytes / 1e6).toFixed(1)} MB`),
    );
    const forced = new URLSearchParams(location.search).get("provider");
    const example = crop(examples, 0, 0, about.size);
    const { provider, differences } = await ask("open", { models: models.href, about, example, forced });

    const canvases = Object.fromEntries(["source", "student", "teacher", "truth"].map((name) => [name, part(name)]));
    const pens = Object.fromEntries(Object.entries(canvases).map(([name, canvas]) => [
      name, canvas.getContext("2d", { willReadFrequently: name === "source" }),
    ]));
    const state = { size: about.sizes[1] ?? about.sizes[0], row: 0, column: 0, painting: false, brush: null };

    // --- what the networks make of it ---

    const networks = Object.keys(about.networks);
    let waiting = false;
    let running = false;
    /** Bring the pictures up to date: always the student's, and the teacher's once the brush rests. */
    async function refresh() {
      for (const name of networks) canvases[name].classList.add("demo-old");
      waiting = true;
      if (running) return;
      running = true;
      try {
        while (waiting) {
          waiting = false;
          const size = state.size;
          const planes = toPlanes(pens.source.getImageData(0, 0, size, size));
          for (const name of state.painting ? ["student"] : networks) {
            const { values, ms } = await ask("run", { name, planes, width: size, height: size });
            if (size !== state.size) break; // the reader has chosen another one meanwhile
            pens[name].putImageData(toPixels(values, size, size), 0, 0);
            part(`${name}-time`).textContent = `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
            if (!waiting) canvases[name].classList.remove("demo-old");
          }
        }
      } catch (error) {
        say(`The networks stopped: ${error.message}. Reloading the page starts them again.`);
      }
      running = false;
    }

    async function measure() {
      const size = state.size;
      const planes = toPlanes(pens.source.getImageData(0, 0, size, size));
      const rows = [];
      for (const [name, network] of Object.entries(about.networks)) {
        const times = [];
        for (let spent = 0; times.length < PASSES && spent < PATIENCE; spent += times.at(-1)) {
          times.push((await ask("run", { name, planes, width: size, height: size })).ms);
        }
        const macs = network.macs[size];
        const median = times.sort((a, b) => a - b)[times.length >> 1];
        rows.push([
          name, `${(network.bytes / 1e6).toFixed(2)} MB, ${network.precision}`, network.parameters.toLocaleString("en"),
          `${(macs.exact / 1e6).toFixed(1)} M`, `${(macs.paper / 1e6).toFixed(1)} M`,
          `${median.toFixed(1)} ms`, differences[name].toExponential(0),
        ]);
      }
      part("rows").replaceChildren(...rows.map(([name, ...cells]) => {
        const row = document.createElement("tr");
        const head = Object.assign(document.createElement("th"), { scope: "row", textContent: name });
        row.append(head, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
        return row;
      }));
      const where = provider === "webgpu" ? "on this device's GPU (WebGPU)" : "on one core of its processor (WebAssembly)";
      part("caption").textContent = `One picture of ${size} × ${size} pixels in this browser, ${where}: median of up to ` +
        `${PASSES} passes. Last column: largest difference from PyTorch's values, which lie between -1 and 1.`;
    }

    // --- a place, or one of the examples ---

    function show() {
      for (const canvas of Object.values(canvases)) if (canvas.width !== state.size) canvas.width = canvas.height = state.size;
      pens.source.drawImage(sources, -state.column, -state.row);
      pens.truth.drawImage(truths, -state.column, -state.row);
      part("truth-name").textContent = `: ${about.domains[1]}`;
      if (about.world) world();
      return refresh();
    }

    function world() {
      const { height, width, top, degrees, bands, band_width: band } = about.world;
      const canvas = part("world");
      const scale = canvas.width / width;
      const pen = canvas.getContext("2d");
      pen.drawImage(sources, 0, 0, canvas.width, canvas.height);
      pen.fillStyle = "rgb(255 255 255 / 35%)";
      for (const left of bands) pen.fillRect(left * scale, 0, band * scale, height * scale);
      const point = canvas.width / (canvas.clientWidth || canvas.width); // what one pixel of the page is here
      const side = Math.max(state.size * scale, 10 * point);
      const [x, y] = [state.column, state.row].map((corner) => (corner + state.size / 2) * scale - side / 2);
      for (const [colour, line] of [["white", 4], ["#d55e00", 2]]) {
        Object.assign(pen, { strokeStyle: colour, lineWidth: line * point });
        pen.strokeRect(x, y, side, side);
      }
      const north = 90 - (top + state.row + state.size / 2) * degrees;
      const east = (state.column + state.size / 2) * degrees - 180;
      const inside = Math.max(...bands.map((left) =>
        Math.min(left + band, state.column + state.size) - Math.max(left, state.column)));
      const known = inside >= Math.min(state.size, band) ? "kept for the test: no network was trained on it"
        : inside > 0 ? "partly kept for the test" : "in the part of the world that training drew from";
      part("where").textContent = `${Math.abs(north).toFixed(1)}° ${north < 0 ? "S" : "N"}, ` +
        `${Math.abs(east).toFixed(1)}° ${east < 0 ? "W" : "E"}: ${known}.`;
    }

    function go(row, column) {
      const { height, width } = about.world;
      state.row = Math.round(Math.min(Math.max(row, 0), height - state.size));
      state.column = Math.round(Math.min(Math.max(column, 0), width - state.size));
      return show();
    }

    const place = part("place");
    const choices = about.world ? Object.keys(about.world.places) : [...about.names, "an empty sheet"];
    place.append(...choices.map((name, i) => new Option(name, i)));
    const chosen = () => {
      if (about.world) {
        const [row, column] = about.world.places[choices[place.value]];
        return go(row - state.size / 2, column - state.size / 2);
      }
      state.column = place.value * state.size; // beyond the last example there is nothing: a white sheet
      canvases.truth.parentElement.hidden = Number(place.value) === about.examples;
      fill(pens.source, "white");
      return show();
    };
    place.addEventListener("change", chosen);

    if (about.world) {
      const canvas = part("world");
      const { height, width } = about.world;
      Object.assign(canvas, { width: 1200, height: Math.round((1200 * height) / width), hidden: false });
      const point = (event) => {
        const [x, y] = position(canvas, event);
        return go((y * height) / canvas.height - state.size / 2, (x * width) / canvas.width - state.size / 2);
      };
      canvas.addEventListener("pointerdown", (event) => (canvas.setPointerCapture(event.pointerId), point(event)));
      canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && point(event));
      onArrows(canvas, (dx, dy, far) => {
        const step = far ? state.size : state.size / 8;
        return go(state.row + dy * step, state.column + dx * step);
      });
      part("size").append(...about.sizes.map((size) => new Option(`${size} × ${size} pixels`, size, false, size === state.size)));
      part("size").addEventListener("change", async ({ target }) => {
        const [row, column] = [state.row + state.size / 2, state.column + state.size / 2];
        state.size = Number(target.value);
        await go(row - state.size / 2, column - state.size / 2);
        await measure();
      });
    }
    if (!about.world) {
      part("kind").textContent = "drawing";
      part("where").textContent = about.credit;
      part("radius").value = 2; // as thick as the lines of the drawings
    }
    part("sizes").hidden = about.sizes.length < 2;
    canvases.teacher.parentElement.hidden = !about.networks.teacher; // a recording may come without
    part("source-name").textContent = `: ${about.domains[0]}. Paint on it.`;

    // --- painting ---

    const brushes = about.world
      ? Object.entries(about.world.brushes).map(([name, at]) => [name, texture(sources, at, about.world.patch)])
      : [["pen", "black"], ["eraser", "white"]];
    part("brushes").append(...brushes.map(([name, style], i) => {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: `brush-${about.task}`, checked: !i });
      radio.addEventListener("change", () => (state.brush = style));
      const swatch = Object.assign(document.createElement("canvas"), { width: 24, height: 24 });
      fill(swatch.getContext("2d"), style);
      label.append(radio, swatch, ` ${name}`);
      return label;
    }));
    state.brush = brushes[0][1];

    /** A stroke between two points of the source, in its pixels. */
    function stroke([x0, y0], [x1, y1]) {
      const pen = pens.source;
      Object.assign(pen, { strokeStyle: state.brush, lineWidth: part("radius").value * (state.size / 64), lineCap: "round" });
      pen.beginPath();
      pen.moveTo(x0, y0);
      pen.lineTo(x1 + 0.01, y1); // a canvas draws no line without a length
      pen.stroke();
      touched();
    }

    function touched() {
      part("truth-name").textContent = ", before you painted";
      refresh();
    }

    let last;
    canvases.source.addEventListener("pointerdown", (event) => {
      canvases.source.setPointerCapture(event.pointerId);
      state.painting = true;
      stroke((last = position(canvases.source, event)), last);
    });
    canvases.source.addEventListener("pointermove", (event) => {
      if (!state.painting) return;
      stroke(last, (last = position(canvases.source, event)));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvases.source.addEventListener(end, () => {
        state.painting = false;
        refresh();
      });
    }

    // By keyboard: a ring says where the brush is.
    const ring = Object.assign(document.createElement("i"), { className: "demo-ring" });
    canvases.source.after(ring);
    let spot = [0.5, 0.5];
    onArrows(canvases.source, (dx, dy, far) => {
      spot = [dx, dy].map((d, i) => Math.min(Math.max(spot[i] + d * (far ? 0.125 : 1 / 32), 0), 1));
      Object.assign(ring.style, { left: `${100 * spot[0]}%`, top: `${100 * spot[1]}%` });
    });
    canvases.source.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      const at = spot.map((share) => share * state.size);
      stroke(at, at);
    });

    part("fill").addEventListener("click", () => (fill(pens.source, state.brush), touched()));
    part("undo").addEventListener("click", () => {
      if (!about.world) fill(pens.source, "white");
      show();
    });
    part("measure").addEventListener("click", measure);

    part("stage").hidden = false;
    await chosen();
    await measure();
    say(`Ready. Everything runs in this browser, ${provider === "webgpu" ? "on its GPU" : "on its processor"}.`);
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

  function crop(image, row, column, size) {
    const pen = Object.assign(document.createElement("canvas"), { width: size, height: size }).getContext("2d");
    pen.drawImage(image, -column, -row);
    return pen.getImageData(0, 0, size, size);
  }

  function fill(pen, style) {
    pen.fillStyle = style;
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
  }

  /** A brush with the map's own colours and shading: a patch of it, mirrored so that it repeats without seams. */
  function texture(map, [row, column], side) {
    const pen = Object.assign(document.createElement("canvas"), { width: 2 * side, height: 2 * side }).getContext("2d");
    for (const [x, y] of [[1, 1], [-1, 1], [1, -1], [-1, -1]]) {
      pen.setTransform(x, 0, 0, y, x < 0 ? 2 * side : 0, y < 0 ? 2 * side : 0);
      pen.drawImage(map, column - side / 2, row - side / 2, side, side, 0, 0, side, side);
    }
    return pen.createPattern(pen.canvas, "repeat");
  }

  /** Where a pointer is, in a canvas' own pixels. */
  function position(canvas, event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  }

  function onArrows(element, move) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    element.addEventListener("keydown", (event) => {
      if (!(event.key in ways)) return;
      event.preventDefault();
      move(...ways[event.key], event.shiftKey);
    });
  }
}
