// The search, live: a teacher and a budget go to Python in a worker; widths, cost and the nearest student's picture
// come back. Below, cells of Python to edit and run.

const CELLS = [
  ["The student of this budget", "plan = plan_channels(config, scales, budget, image_size=image_size,\n                     min_width=min_width, cost=\"exact\")\nprint(plan.config)\nprint(f\"{plan.cost:,} MACs, threshold {plan.threshold}\")"],
  ["A cost of your own: as few parameters as possible", "plan = plan_channels(config, scales, generator_params(config) / 8,\n                     image_size=image_size, min_width=min_width, cost=generator_params)\nprint(plan.config)\nprint(f\"{generator_macs(plan.config, image_size, 'exact'):,} MACs\")"],
  ["A ranking of your own: uniform narrowing", "even = {name: [1 - i / len(s) for i in range(len(s))] for name, s in scales.items()}\nplan = plan_channels(config, even, budget, image_size=image_size,\n                     min_width=min_width, cost=\"exact\")\nprint(plan.config)"],
];

/** Python in a worker: `ask("find", name, budget)` gives a promise. */
function start(onStop) {
  const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data: { id, result, error } }) => {
    const [resolve, reject] = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  };
  worker.onerror = (event) => {
    for (const [, reject] of waiting.values()) reject(new Error(event.message || "the worker could not be loaded"));
    onStop?.();
  };
  return (call, ...given) => new Promise((resolve, reject) => {
    waiting.set(++last, [resolve, reject]);
    worker.postMessage({ id: last, call, given });
  });
}

export async function open(section) {
  const ask = start();
  const teachers = JSON.parse(await ask("open"));
  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  const names = Object.keys(teachers);
  const teacher = make("select", {}, ...names.map((name) => new Option(teachers[name].title, name)));
  const percent = make("input", { type: "range", min: 0, max: 2, step: 0.001, value: Math.log10(12.5) });
  const macs = make("input", { type: "number", min: 1, step: 1 });
  const said = make("p", { className: "budget-said" });
  said.setAttribute("role", "status");
  const facts = make("dl", { className: "budget-facts simple" });
  const layers = make("div", { className: "budget-layers" });
  const pictures = make("div", { className: "search-pictures" });
  const cells = make("div", { className: "search-cells" });
  const whole = {}; // name -> the teacher's exact MACs

  async function show(budget) {
    const name = teacher.value;
    macs.value = Math.round(budget);
    const result = JSON.parse(await ask("find", name, budget));
    section.dataset.result = JSON.stringify(result);
    const share = `${(100 * budget / whole[name]).toPrecision(3)} %`;
    percent.setAttribute("aria-valuetext", `${share} of the teacher's MACs`);
    if (result.error) {
      said.textContent = `ValueError: ${result.error}`;
      for (const part of [facts, layers, pictures]) part.replaceChildren();
      return;
    }
    said.textContent = `Budget: ${share} of the teacher's MACs. Python counted ${result.counted} students in ` +
      `${result.milliseconds.toFixed(0)} ms here.`;
    const rows = {
      "threshold": result.threshold === null ? "none" : result.threshold.toFixed(5),
      "MACs, exact": result.macs.toLocaleString("en"),
      "of the teacher's": `${(100 * result.share).toFixed(2)} %`,
      "parameters": result.parameters.toLocaleString("en"),
    };
    facts.replaceChildren(...Object.entries(rows).map(([head, value]) =>
      make("div", {}, make("dt", { textContent: head }), make("dd", { textContent: value }))));
    layers.replaceChildren(...widths(result.config, result.whole).flatMap(([head, own, before]) =>
      studentBars(head, own, before)));
    await picture(name, result.macs);
  }

  // --- the picture of the student that was trained at the nearest cost ---

  const strips = {};
  async function picture(name, cost) {
    pictures.replaceChildren();
    if (!teachers[name].pictures) return;
    const models = new URL(`${section.dataset.static}models/${name}/`, document.baseURI);
    const about = strips[name] ??= await (await fetch(new URL("demo.json", models))).json();
    const far = (network) => Math.abs(Math.log(network.macs[about.size] / cost));
    const [nearest] = about.networks.toSorted((a, b) => far(a) - far(b));
    const shown = [["sources", about.domains[0]], [nearest.name, "nearest trained network"], ["truths", "truth"]];
    for (const [file, label] of shown) {
      const image = new Image();
      image.src = new URL(`${file}.webp`, models);
      await image.decode();
      const canvas = make("canvas", { width: about.size, height: about.size });
      canvas.getContext("2d").drawImage(image, -about.size * about.first, 0);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", label);
      const said = file === nearest.name ? `${label}: ${nearest.macs[about.size].toLocaleString("en")} MACs` : label;
      pictures.append(make("figure", {}, canvas, make("figcaption", { textContent: said })));
    }
  }

  // --- cells ---

  CELLS.forEach(([title, code], number) => {
    const text = make("textarea", { value: code, rows: code.split("\n").length + 1, spellcheck: false });
    text.setAttribute("aria-label", `Python: ${title}`);
    const out = make("pre", { tabIndex: 0, hidden: true });
    out.setAttribute("aria-label", `Output of: ${title}`);
    const run = make("button", { type: "button", textContent: "Run" });
    async function execute() {
      out.hidden = false;
      out.textContent = "…";
      out.textContent = await ask("run", teacher.value, Number(macs.value), text.value) || "(no output)";
    }
    run.addEventListener("click", execute);
    text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      execute();
    });
    cells.append(make("div", {}, make("p", { textContent: `${number + 1}. ${title}` }), text, run, out));
  });

  // --- together ---

  const field = (label, control) => make("label", {}, make("span", { textContent: label }), control);
  const choice = make("div", { className: "search-choice" },
    field("Teacher", teacher), field("Budget, exact MACs", macs), field("Budget, share of the teacher's MACs", percent));
  const hint = make("p", { className: "budget-said", textContent:
    "The same Python, to edit: config, scales, image_size, min_width and budget are those above. Shift + Enter runs a cell." });
  const live = make("div", { className: "search-live budget" }, choice, said, facts, layers, pictures, hint, cells);

  const asPercent = () => show((10 ** percent.value / 100) * whole[teacher.value]);
  percent.addEventListener("input", asPercent);
  teacher.addEventListener("change", asPercent);
  macs.addEventListener("change", () => {
    const budget = Number(macs.value);
    percent.value = Math.log10(100 * budget / whole[teacher.value]);
    show(budget);
  });
  for (const name of names) whole[name] = JSON.parse(await ask("find", name, 1e15)).macs;
  await asPercent();
  section.append(live);
}

/** Rows of widths: the layer's name, the student's widths, the teacher's. */
function widths(config, whole) {
  const own = (part) => [...part.conv, ...part.depthwise];
  return [
    ...config.stem.map((width, i) => [`stem ${i + 1}`, [width], [whole.stem[i]]]),
    ...config.blocks.map((block, i) => [`block ${i + 1}`, own(block), own(whole.blocks[i])]),
    ...config.up.map((width, i) => [`up ${i + 1}`, [width], [whole.up[i]]]),
  ];
}
