// What makes three kinds of output explorable. All are complete without this script: images one below the other, and a
// table. And what scrolls can be reached without a pointer.

// The same images by several models, as mosaics: one image at a time, by two of the models, and a divider that says where one
// ends and the other begins. The last two come first.
for (const box of document.querySelectorAll(".compare")) {
  const images = [...box.querySelectorAll("img")];
  const names = images.map((image) => image.dataset.name);
  const columns = Number(box.dataset.columns ?? 1), count = Number(box.dataset.count ?? 1);
  const frame = element("div", { className: "compare-frame" });
  frame.style.setProperty("--columns", columns);
  const divider = element("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50 });
  divider.setAttribute("aria-label", "Divider between the two images, in percent from the left");
  const [left, right] = [names.length - 2, names.length - 1].map((chosen, side) => {
    const select = element("select", {});
    select.append(...names.map((name, i) => new Option(name, i, false, i === chosen)));
    select.setAttribute("aria-label", side ? "Image on the right" : "Image on the left");
    select.addEventListener("change", show);
    return select;
  });
  const place = element("output", {});
  let at = 0;
  const [before, after] = [[-1, "‹", "Image before"], [1, "›", "Next image"]].map(([step, sign, label]) => {
    const button = element("button", { type: "button", textContent: sign });
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => {
      at = (at + step + count) % count;
      show();
    });
    return button;
  });
  function show() {
    frame.style.setProperty("--column", at % columns);
    frame.style.setProperty("--row", Math.floor(at / columns));
    frame.replaceChildren(...[left, right].map((select) => {
      const pane = element("div", {});
      pane.append(images[select.value].cloneNode());
      return pane;
    }), divider);
    place.textContent = `image ${at + 1} of ${count}`;
  }
  divider.addEventListener("input", () => frame.style.setProperty("--at", `${divider.value}%`));
  const choice = element("div", { className: "compare-choice" });
  choice.append(left, right);
  const places = element("div", { className: "compare-choice" });
  places.append(before, place, after);
  box.replaceChildren(choice, frame, ...(count > 1 ? [places] : []));
  show();
}

// Snapshots of a training: a slider shows one at a time, the last one first.
for (const box of document.querySelectorAll(".scrubber")) {
  const images = [...box.querySelectorAll("img")];
  const last = images.length - 1;
  const slider = element("input", { type: "range", min: 0, max: last, value: last });
  slider.setAttribute("aria-label", "Step of the training");
  const said = element("output", {});
  function show() {
    const step = `after ${Number(images[slider.value].dataset.step).toLocaleString("en")} steps`;
    slider.setAttribute("aria-valuetext", step);
    said.textContent = step;
    images.forEach((image, i) => { image.hidden = i !== Number(slider.value); });
  }
  slider.addEventListener("input", show);
  const choice = element("div", { className: "scrubber-choice" });
  choice.append(slider, said);
  box.append(choice);
  show();
}

// A table of students, narrowest first and the teacher last: a slider shows one at a time, its widths as bars.
for (const table of document.querySelectorAll("table.budgets")) {
  const heads = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent);
  const rows = [...table.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
  const teacher = rows.at(-1);
  const first = heads.indexOf("stem 1"); // facts before it, widths from it on
  const slider = element("input", { type: "range", min: 0, max: rows.length - 1, value: table.dataset.start ?? 0 });
  slider.setAttribute("aria-label", "Budget of the student");
  const facts = element("dl", { className: "budget-facts simple" });
  const layers = element("div", { className: "budget-layers" });
  const said = element("p", { className: "budget-said" });
  said.setAttribute("role", "status");
  const numbers = (text) => text.split(" ").map(Number);

  function show() {
    const row = rows[slider.value];
    slider.setAttribute("aria-valuetext", `${row[0]} % of the teacher's MACs`);
    said.textContent = `Budget: ${row[0]} % of the teacher's MACs.`;
    facts.replaceChildren(...heads.slice(1, first).map((head, i) => {
      const pair = element("div", {});
      pair.append(element("dt", { textContent: head }), element("dd", { textContent: row[i + 1] }));
      return pair;
    }));
    layers.replaceChildren(...heads.slice(first).flatMap((head, i) =>
      studentBars(head, numbers(row[first + i]), numbers(teacher[first + i]))));
  }

  slider.addEventListener("input", show);
  const box = element("div", { className: "budget" });
  const label = element("label", { textContent: "Budget " });
  label.append(slider);
  box.append(label, said, facts, layers);
  const all = element("details", {});
  all.append(element("summary", { textContent: "All of them as a table" }));
  table.replaceWith(box);
  all.append(table);
  box.after(all);
  show();
}

// What scrolls within the page can be reached by keyboard; formulas are set late.
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const part of document.querySelectorAll("article :is(mjx-container, pre, .output.text_html, .budget + details)")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
});

// The widths of one layer as bars within the teacher's, after its name. The live search draws them, too.
function studentBars(head, widths, whole) {
  const bars = element("div", { className: "budget-bars" });
  bars.append(...widths.map((width, branch) => {
    const bar = element("span", { textContent: width || "–" });
    bar.style.setProperty("--share", width / whole[branch]);
    bar.title = `${width} of ${whole[branch]}`;
    return bar;
  }));
  const row = [element("div", { textContent: head }), bars];
  return head === "block 1" && widths.length === 6 ? [element("div", {}), branchNames(), ...row] : row;
}

// What the six columns of the blocks are.
function branchNames() {
  const names = element("div", { className: "budget-names" });
  for (const kind of ["plain", "depth\u00adwise"]) {
    for (const side of [1, 3, 5]) names.append(element("span", { textContent: `${kind} ${side}\u00a0×\u00a0${side}` }));
  }
  return names;
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
