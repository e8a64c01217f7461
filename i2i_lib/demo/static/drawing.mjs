// A sheet to draw on, by pointer or keyboard: a list of marks over a background.

/** Each tool draws a mark of points [x, y] and a width, in pixels, in the pen's colours. */
const TOOLS = {
  brush(pen, { points, width }) {
    Object.assign(pen, { lineWidth: width, lineCap: "round", lineJoin: "round" });
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (const [x, y] of points) pen.lineTo(x + 0.01, y); // a canvas draws no line without a length
    pen.stroke();
  },
  ellipse(pen, mark) {
    const [left, top, width, height] = boxOf(mark);
    pen.beginPath();
    pen.ellipse(left + width / 2, top + height / 2, width / 2, height / 2, 0, 0, 2 * Math.PI);
    pen.fill();
  },
  box(pen, mark) {
    const [left, top, width, height] = boxOf(mark);
    pen.beginPath();
    pen.roundRect(left, top, width, height, Math.min(width, height) / 4);
    pen.fill();
  },
  shape(pen, { points }) {
    const middle = (i) => [0, 1].map((axis) => (points[i][axis] + points[(i + 1) % points.length][axis]) / 2);
    Object.assign(pen, { lineWidth: 1.5, lineJoin: "round" }); // so that the first corners show
    pen.beginPath();
    pen.moveTo(...middle(points.length - 1));
    for (const [i, point] of points.entries()) pen.quadraticCurveTo(...point, ...middle(i));
    pen.closePath();
    pen.fill();
    pen.stroke();
  },
  fill(pen) {
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
  },
};

/** Left, top, width and height between the first point and the last; of a mere click, a square around it. */
function boxOf({ points, width }) {
  const [[x0, y0], [x1, y1]] = [points[0], points.at(-1)];
  if (Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0)) < 2) return [x0 - 2 * width, y0 - 2 * width, 4 * width, 4 * width];
  return [Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0)];
}

/**
 * Make a canvas a sheet. `tool`, `style` (a colour or a pattern) and `width` (a share of the side) are of the next mark;
 * `changed` hears of every change.
 */
export function sheetOn(canvas, changed) {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let background = () => {};
  let marks = [];
  let open = null; // the mark that is being drawn
  let byPointer = false;

  const sheet = {
    tool: "brush",
    style: "black",
    width: 0.1,
    drawing: () => byPointer,
    untouched: () => !marks.length,
    pixels: () => pen.getImageData(0, 0, canvas.width, canvas.height),
    /** A new sheet of `size` pixels; `paint` draws its background with the pen that it gets. */
    begin(size, paint) {
      canvas.width = canvas.height = size;
      background = paint;
      marks = [];
      open = null;
      redraw();
    },
    fill(style = sheet.style) {
      add({ tool: "fill", style, points: [] });
      update();
    },
    undo() {
      marks.pop();
      open = null;
      update();
    },
    reset() {
      marks = [];
      open = null;
      update();
    },
  };

  function redraw() {
    background(pen);
    for (const mark of marks) {
      Object.assign(pen, { fillStyle: mark.style, strokeStyle: mark.style });
      TOOLS[mark.tool](pen, mark);
    }
  }

  function update() {
    redraw();
    changed();
  }

  function add(mark) {
    open = { tool: sheet.tool, style: sheet.style, width: sheet.width * canvas.width, ...mark };
    marks.push(open);
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    byPointer = true;
    add({ points: [positionOn(canvas, event)] });
    update();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!byPointer) return;
    open.points.push(positionOn(canvas, event));
    update();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (!byPointer) return;
      byPointer = false;
      open = null;
      changed();
    });
  }

  // By keyboard: a ring says where the pen is. The space bar draws there; for a shape it sets a corner, until Enter.
  const ring = Object.assign(document.createElement("i"), { className: "demo-ring" });
  canvas.after(ring);
  let spot = [0.5, 0.5];
  onArrows(canvas, (right, down, far) => {
    spot = [right, down].map((d, i) => Math.min(Math.max(spot[i] + d * (far ? 0.125 : 1 / 32), 0), 1));
    Object.assign(ring.style, { left: `${100 * spot[0]}%`, top: `${100 * spot[1]}%` });
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter") open = null;
    if (event.key === "Backspace" || (event.key === "z" && (event.ctrlKey || event.metaKey))) {
      event.preventDefault();
      sheet.undo();
    }
    if (event.key !== " ") return;
    event.preventDefault();
    const at = spot.map((share) => share * canvas.width);
    if (open?.tool === "shape" && sheet.tool === "shape") open.points.push(at);
    else add({ points: [at] });
    update();
  });
  return sheet;
}

/** Where a pointer is, in a canvas' own pixels. */
export function positionOn(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
}

/** Call `move(right, down, far)` for each arrow key; `far` with Shift. */
export function onArrows(element, move) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  element.addEventListener("keydown", (event) => {
    if (!(event.key in ways)) return;
    event.preventDefault();
    move(...ways[event.key], event.shiftKey);
  });
}
