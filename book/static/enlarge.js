// A figure of a run opens large: by the button below it, or by a click on it. Escape closes it, and so does a click beside.
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

  for (const figure of document.querySelectorAll("article .cell_output figure")) {
    const shown = figure.querySelector(":scope > img, .image-rows, .image-row");
    const caption = figure.querySelector("figcaption p");
    if (!shown || !caption) continue;
    const name = caption.querySelector(".caption-number")?.textContent.trim() ?? "the figure";
    const opener = button("Enlarge");
    opener.setAttribute("aria-label", `Enlarge ${name}`);
    const open = () => {
      dialog.setAttribute("aria-label", name);
      place.setAttribute("aria-label", name);
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
