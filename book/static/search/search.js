// The search before it is live: a button that says what a click loads.
// A classic script, since browsers load no module from a folder.
{
  const HERE = new URL(".", document.currentScript.src);

  for (const section of document.querySelectorAll("section.search")) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Run the search here" });
    const said = document.createElement("p");
    said.setAttribute("role", "status");
    section.append(button, said);
    button.disabled = location.protocol === "file:" || typeof DecompressionStream === "undefined";
    said.textContent = location.protocol === "file:"
      ? "To run it, call “make serve” in the book's repository and open this page at localhost:8000: browsers load no program from a folder."
      : button.disabled
        ? "This browser cannot run it: it is too old, or a setting switches WebAssembly off."
        : "A click loads 7 MB, most of it Python itself, and runs the library's own search on your device.";
    button.addEventListener("click", async () => {
      button.disabled = true;
      said.textContent = "Loading Python …";
      try {
        const { open } = await import(new URL("search.mjs", HERE));
        await open(section);
        button.remove();
        said.remove();
      } catch (error) {
        console.warn(error);
        said.textContent = `Python could not be started: ${error.message}. Reload the page, or try another browser.`;
        button.disabled = false;
      }
    });
  }
}
