// Python in the page: Pyodide, the modules of the library that need no PyTorch, and the session that uses them.
// Nothing here knows the page or the worker: tests run it, too.

/** `library`: path -> source of each module; `session`, `teachers`: texts of session.py and teachers.json. */
export async function openPython(loadPyodide, options, { library, session, teachers }) {
  const python = await loadPyodide(options);
  for (const [path, source] of Object.entries(library)) {
    const parts = path.split("/").slice(0, -1);
    parts.forEach((_, i) => python.FS.analyzePath(`/lib/book/${parts.slice(0, i + 1).join("/")}`).exists ||
      python.FS.mkdirTree(`/lib/book/${parts.slice(0, i + 1).join("/")}`));
    python.FS.writeFile(`/lib/book/${path}`, source);
  }
  python.FS.writeFile("/lib/book/session.py", session);
  python.runPython("import sys; sys.path.insert(0, '/lib/book')");
  const page = python.pyimport("session");
  page.open_teachers(teachers);
  return {
    find: (name, budget) => page.found(name, budget),
    run(name, budget, code) {
      const globals = page.namespace(name, budget);
      page.start_output();
      try {
        const value = python.runPython(code, { globals: python.toPy(globals) });
        const printed = page.end_output();
        return printed || (value === undefined ? "" : String(value));
      } catch (error) {
        return page.end_output() + String(error.message).trim().split("\n").at(-1);
      }
    },
  };
}
