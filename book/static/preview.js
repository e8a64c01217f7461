// What a link within the book leads to, shown beside it while the pointer or the keyboard is there. The page keeps it in
// a template. Escape closes it; the pointer may move onto it; a finger gets none, since it follows the link.
{
  const box = Object.assign(document.createElement("div"), { className: "preview", id: "preview", hidden: true });
  box.setAttribute("role", "tooltip");
  const templates = [...document.querySelectorAll("template[data-preview]")];
  const kept = new Map(templates.map((template) => [template.dataset.preview, template]));
  let link = null; // the one whose preview is shown
  let timer;

  const later = (act) => {
    clearTimeout(timer);
    timer = setTimeout(act, 250);
  };
  const hide = () => {
    clearTimeout(timer);
    link?.removeAttribute("aria-describedby");
    link = null;
    box.hidden = true;
  };
  const show = async (on) => {
    hide();
    link = on;
    box.replaceChildren(kept.get(on.getAttribute("href")).content.cloneNode(true));
    box.style.left = box.style.top = "0"; // so that the last place does not narrow it
    box.style.maxHeight = "";
    box.style.visibility = "hidden";
    box.hidden = false;
    if (box.querySelector(".math")) await MathJax.startup.promise.then(() => MathJax.typesetPromise([box]));
    if (link !== on) return; // left in the meantime
    const line = on.getClientRects()[0]; // the first of a link over two lines
    const page = box.offsetParent.getBoundingClientRect();
    const left = Math.max(8, Math.min(line.left, document.documentElement.clientWidth - box.offsetWidth - 8));
    const [above, below] = [line.top - 8, window.innerHeight - line.bottom - 8];
    const under = box.offsetHeight <= below || below >= above;
    box.style.maxHeight = `${under ? below : above}px`;
    box.style.left = `${left - page.left}px`;
    box.style.top = `${(under ? line.bottom + 4 : line.top - box.offsetHeight - 4) - page.top}px`;
    box.style.visibility = "";
    on.setAttribute("aria-describedby", box.id);
  };
  const linkAt = (element) => {
    const found = element.closest?.("article a[href]:not(.headerlink)");
    return found && kept.has(found.getAttribute("href")) ? found : null;
  };

  if (kept.size) {
    document.querySelector("article").append(box);
    document.addEventListener("pointerover", (event) => {
      const on = event.pointerType === "mouse" ? linkAt(event.target) : null;
      if (on && on !== link) later(() => show(on));
      else if (on || box.contains(event.target)) clearTimeout(timer);
      else later(hide);
    });
    document.addEventListener("focusin", ({ target }) => {
      if (target.matches(":focus-visible") && linkAt(target)) show(target);
    });
    document.addEventListener("focusout", hide);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
    });
  }
}
