// Which positions of one picture look alike to a teacher and to its student, at each tapped layer, and how well the two
// agree (GCKA). A classic script that loads its features as another one, so that it runs in a page opened from a folder.
for (const section of document.querySelectorAll("section.alike")) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Look inside" });
  const note = document.createElement("p");
  note.setAttribute("role", "status");
  note.textContent = `A click loads the feature maps of one test picture: ${section.dataset.megabytes} MB.`;
  section.append(button, note);
  button.addEventListener("click", () => {
    button.disabled = true;
    note.textContent = "Loading …";
    window.alike = (found) => {
      button.remove();
      note.remove();
      lookInside(section, found);
    };
    const script = Object.assign(document.createElement("script"), { src: `${section.dataset.models}alike.js` });
    script.onerror = () => {
      note.textContent = "The features could not be loaded. Reload the page.";
      button.disabled = false;
    };
    document.head.append(script);
  });
}

/** Half-precision numbers in base64 as an array. */
function halves(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Float64Array.from(new Uint16Array(bytes.buffer), (h) => {
    const sign = h & 0x8000 ? -1 : 1, exponent = (h >> 10) & 31, fraction = h & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  });
}

/** The maps of a network, layer by layer: channels × positions, the mean of each channel taken off. */
function centred({ widths, features }, positions) {
  const values = halves(features);
  let start = 0;
  return widths.map((width) => {
    const channels = [];
    for (let c = 0; c < width; c++, start += positions) {
      const channel = values.slice(start, start + positions);
      const mean = channel.reduce((sum, value) => sum + value, 0) / positions;
      channels.push(channel.map((value) => value - mean));
    }
    return channels;
  });
}

/** ||Yᵀ X||² / (||Xᵀ X|| ||Yᵀ Y||): products of channels, as in the library. */
function gcka(x, y) {
  const product = (a, b) => {
    let sum = 0;
    for (const u of a) {
      for (const v of b) {
        let dot = 0;
        for (let i = 0; i < u.length; i++) dot += u[i] * v[i];
        sum += dot * dot;
      }
    }
    return sum;
  };
  return product(x, y) / Math.sqrt(product(x, x) * product(y, y));
}

/** A row of the table of similarities X Xᵀ: that of one position with all. */
function similarities(channels, position) {
  const row = new Float64Array(channels[0].length);
  for (const channel of channels) {
    for (let i = 0; i < row.length; i++) row[i] += channel[position] * channel[i];
  }
  return row;
}

function cosine(a, b) {
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

function lookInside(section, { grid: [height, width], layers, networks, size, picture }) {
  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const positions = height * width;
  const features = Object.fromEntries(Object.entries(networks).map(([name, n]) => [name, centred(n, positions)]));
  const students = Object.keys(networks).filter((name) => name !== "teacher");
  const aligned = Object.fromEntries(students.map((name) =>
    [name, layers.map((_, l) => gcka(features[name][l], features.teacher[l]))]));
  section.dataset.gcka = JSON.stringify(aligned);

  let at = Math.floor(height / 2) * width + Math.floor(width / 2);
  const source = make("canvas", { width: 4 * size, height: 4 * size, tabIndex: 0, className: "alike-source" });
  source.setAttribute("role", "application");
  source.setAttribute("aria-label", "The test picture. Point at a position, or move with the arrow keys, with Shift four at a time.");
  const choice = make("select", {}, ...students.map((name) => new Option(networks[name].label, name)));
  choice.setAttribute("aria-label", "Student");
  const said = make("p", { className: "alike-said" });
  said.setAttribute("role", "status");
  const canvas = () => {
    const made = make("canvas", { width, height });
    made.setAttribute("role", "img");
    made.addEventListener("click", pointed);
    return made;
  };
  const cells = { teacher: layers.map(canvas), student: layers.map(canvas) };
  const numbers = layers.map(() => make("td"));
  const here = layers.map(() => make("td"));
  const row = (head, parts) => make("tr", {}, make("th", { scope: "row", textContent: head }), ...parts);
  const inside = (canvases) => canvases.map((part) => make("td", {}, part));
  const table = make("table", {},
    make("thead", {}, make("tr", {}, make("td"), ...layers.map((name) => make("th", { scope: "col", textContent: name })))),
    make("tbody", {}, row("teacher", inside(cells.teacher)), row("student", inside(cells.student)),
      row("GCKA", numbers), row("here", here)));
  const key = make("p", { className: "alike-key" });
  key.innerHTML = 'The more <b class="alike-like">blue</b>, the more alike to the marked position; <b class="alike-unlike">orange</b> is the opposite.';

  const image = new Image();
  image.src = `${section.dataset.models}sources.webp`;

  function paint(target, values) {
    const most = values.reduce((peak, value) => Math.max(peak, Math.abs(value)), 1e-12);
    const pen = target.getContext("2d"), pixels = pen.createImageData(width, height);
    values.forEach((value, i) => {
      pixels.data.set(value > 0 ? [20, 120, 200] : [224, 140, 0], 4 * i);
      pixels.data[4 * i + 3] = 255 * Math.sqrt(Math.abs(value) / most);
    });
    pen.putImageData(pixels, 0, 0);
    mark(pen, 1);
  }

  function mark(pen, scale) {
    const x = (at % width) * scale, y = Math.floor(at / width) * scale;
    pen.lineWidth = Math.max(1, scale / 4);
    pen.strokeStyle = "#000";
    pen.strokeRect(x - pen.lineWidth / 2, y - pen.lineWidth / 2, scale + pen.lineWidth, scale + pen.lineWidth);
    pen.strokeStyle = "#fff";
    pen.strokeRect(x - 1.5 * pen.lineWidth, y - 1.5 * pen.lineWidth, scale + 3 * pen.lineWidth, scale + 3 * pen.lineWidth);
  }

  function show() {
    const pen = source.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, picture * size, 0, size, size, 0, 0, source.width, source.height);
    mark(pen, source.width / width);
    const student = choice.value;
    const agree = layers.map((name, l) => {
      const [taught, own] = [features.teacher[l], features[student][l]].map((maps) => similarities(maps, at));
      paint(cells.teacher[l], taught);
      paint(cells.student[l], own);
      cells.teacher[l].setAttribute("aria-label", `Alike to the teacher after ${name}`);
      cells.student[l].setAttribute("aria-label", `Alike to the student after ${name}`);
      return cosine(taught, own);
    });
    numbers.forEach((cell, l) => { cell.textContent = aligned[student][l].toFixed(3); });
    here.forEach((cell, l) => { cell.textContent = agree[l].toFixed(2); });
    said.textContent = `Row ${Math.floor(at / width) + 1}, column ${at % width + 1}: ` +
      `teacher and student agree by ${agree.map((value) => value.toFixed(2)).join(", ")} here.`;
  }

  function pointed(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const place = (value, count) => Math.min(count - 1, Math.max(0, Math.floor(value * count)));
    at = place((event.clientY - box.top) / box.height, height) * width + place((event.clientX - box.left) / box.width, width);
    show();
  }
  source.addEventListener("pointerdown", pointed);
  source.addEventListener("pointermove", (event) => { if (event.buttons) pointed(event); });
  source.addEventListener("keydown", (event) => {
    const [dy, dx] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (dy === undefined) return;
    event.preventDefault();
    const far = event.shiftKey ? 4 : 1, within = (value, count) => Math.min(count - 1, Math.max(0, value));
    at = within(Math.floor(at / width) + far * dy, height) * width + within((at % width) + far * dx, width);
    show();
  });
  choice.addEventListener("change", show);

  const left = make("div", {}, source, ...(students.length > 1 ? [choice] : []));
  image.decode().then(() => {
    show();
    section.append(make("div", { className: "alike-parts" }, left, make("div", {}, table, key, said)));
  });
}
