// The map of the world: a frame on it to move, and its own textures to paint with.

import { onArrows, positionOn } from "./drawing.mjs";

const WIDTH = 1200; // of the canvas, in its own pixels

/** Show `map` with a frame. `to(row, column)` hears where the reader points, `by(down, right, far)` which arrow is pressed. */
export function worldOn(canvas, world, map, { to, by }) {
  const { height, width, top, degrees, bands, band_width: band } = world;
  const scale = WIDTH / width;
  Object.assign(canvas, { width: WIDTH, height: Math.round(height * scale) });
  const point = (event) => to(...positionOn(canvas, event).reverse().map((at) => at / scale));
  canvas.addEventListener("pointerdown", (event) => (canvas.setPointerCapture(event.pointerId), point(event)));
  canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && point(event));
  onArrows(canvas, (right, down, far) => by(down, right, far));

  return {
    /** Draw the frame with its corner at a row and column, and return in words where that is. */
    frame(row, column, size) {
      const pen = canvas.getContext("2d");
      pen.drawImage(map, 0, 0, canvas.width, canvas.height);
      pen.fillStyle = "rgb(255 255 255 / 0.3)";
      for (const left of bands) pen.fillRect(left * scale, 0, band * scale, canvas.height);
      const dot = canvas.width / (canvas.clientWidth || canvas.width); // what one pixel of the page is here
      const side = Math.max(size * scale, 10 * dot);
      const [x, y] = [column, row].map((corner) => (corner + size / 2) * scale - side / 2);
      for (const [colour, line] of [["white", 4], ["#d55e00", 2]]) {
        Object.assign(pen, { strokeStyle: colour, lineWidth: line * dot });
        pen.strokeRect(x, y, side, side);
      }
      const north = 90 - (top + row + size / 2) * degrees;
      const east = (column + size / 2) * degrees - 180;
      const inside = Math.max(...bands.map((left) => Math.min(left + band, column + size) - Math.max(left, column)));
      const known = inside >= Math.min(size, band) ? "kept for the test"
        : inside > 0 ? "partly kept for the test" : "training drew from here";
      return `${Math.abs(north).toFixed(1)}° ${north < 0 ? "S" : "N"}, ${Math.abs(east).toFixed(1)}° ${east < 0 ? "W" : "E"}: ${known}`;
    },
  };
}

/** A brush with the map's own colours and shading: a patch of it, mirrored so that it repeats without seams. */
export function textureOf(map, [row, column], side) {
  const pen = Object.assign(document.createElement("canvas"), { width: 2 * side, height: 2 * side }).getContext("2d");
  for (const [x, y] of [[1, 1], [-1, 1], [1, -1], [-1, -1]]) {
    pen.setTransform(x, 0, 0, y, x < 0 ? 2 * side : 0, y < 0 ? 2 * side : 0);
    pen.drawImage(map, column - side / 2, row - side / 2, side, side, 0, 0, side, side);
  }
  return pen.createPattern(pen.canvas, "repeat");
}
