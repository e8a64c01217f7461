// A figure of a run, or a drawing, opens large: by the button below it, or by a click on it. Escape closes it, and so does
// a click beside.
{
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  const close = button("Close");
  const place = document.createElement("div");
  place.tabIndex = 0; // scrolls by the arrow keys
  place.setAttribute("role", "group");
  dialog.append(close, place);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  const drawings = "figure:is(.front-chart, .gan-figure, .method-whole)";
  for (const figure of document.querySelectorAll("article figure")) {
    const shown = figure.querySelector(":scope > :is(img, svg:not(.method-defs), .method-drawn), .image-rows, .image-row");
    const caption = figure.querySelector("figcaption p") ?? figure.querySelector("figcaption");
    if (!shown || !caption) continue;
    const name = caption.querySelector(".caption-number")?.textContent.trim() ?? "the drawing";
    const opener = button("Enlarge");
    opener.setAttribute("aria-label", `Enlarge ${name}`);
    const open = () => {
      dialog.setAttribute("aria-label", name);
      place.setAttribute("aria-label", name);
      place.className = figure.matches(drawings) ? figure.className : ""; // what colours the drawing
      place.replaceChildren(shown.cloneNode(true));
      dialog.showModal();
    };
    opener.addEventListener("click", open);
    shown.addEventListener("click", open);
    caption.append(" ", opener);
    if (!dialog.isConnected) figure.closest("article").append(dialog);
  }

  function button(text) {
    return Object.assign(document.createElement("button"), { type: "button", className: "enlarge", textContent: text });
  }
}
