// The live demo before it is live: finished examples to choose from, and the button that loads the networks.
// A classic script, since browsers load no module from a folder.
{
  const HERE = new URL(".", document.currentScript.src);

  for (const section of document.querySelectorAll(".demo")) prepare(section);

  /** Why a demo cannot run here; empty if it can. `serve` says how to serve it. */
  function obstacle(serve) {
    if (location.protocol === "file:") {
      return `Finished examples. To draw, ${serve}: browsers load no network from a folder.`;
    }
    if (typeof WebAssembly === "undefined" || typeof DecompressionStream === "undefined") {
      return "Finished examples. This browser cannot run the networks: it has no WebAssembly, or a setting such as a " +
        "lockdown mode switches it off.";
    }
    return "";
  }

  function prepare(section) {
    const part = (name) => section.querySelector(`[data-part="${name}"]`);
    const say = (text) => (part("status").textContent = text);

    // --- choose an example and a student: the pictures are strips, and the style says which part of them shows ---

    const demo = { section, part, say, onStudent: null, onExample: null }; // heard by what is live
    for (const radio of section.querySelectorAll(".demo-examples input")) {
      radio.addEventListener("change", () => {
        if (radio.value !== "empty") section.style.setProperty("--example", radio.value);
        part("name").textContent = radio.getAttribute("aria-label");
        part("source-image").alt = radio.getAttribute("aria-label");
        demo.onExample?.(radio.value);
      });
    }
    for (const radio of section.querySelectorAll(".demo-students input")) {
      radio.disabled = false;
      radio.addEventListener("change", () => {
        part("student-image").src = radio.parentElement.querySelector("img").src;
        part("student-label").textContent = radio.dataset.label;
        demo.onStudent?.(radio.value);
      });
    }
    part("examples").hidden = false;

    // --- and bring them to life ---

    const button = part("load");
    button.hidden = false;
    const why = obstacle(section.dataset.serve);
    button.disabled = Boolean(why);
    say(why || `A click loads ${section.dataset.megabytes} MB and runs the networks on your device. Nothing you draw leaves it.`);
    part("source-image").addEventListener("click", () => button.click());
    button.addEventListener("click", async () => {
      button.disabled = true;
      say("Loading …");
      try {
        const { open } = await import(new URL("live.mjs", HERE));
        await open(demo);
        section.classList.add("demo-live");
        button.parentElement.hidden = true;
      } catch (error) {
        console.warn(error);
        say(`The networks could not be started: ${error.message}. Reload the page, or try another browser.`);
        button.disabled = false;
      }
    });
  }
}
