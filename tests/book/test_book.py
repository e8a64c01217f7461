"""Assembling and building the book, on made-up runs: no notebook is executed here."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
import server
import yaml
from fake_run import CHAPTERS, checkout, facts, fill
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from i2i_book.make import command
from i2i_book.pages.build import SCRIPTS, build, faults
from i2i_book.pages.dress import last_change
from i2i_book.pages.extension import (
    _end_chain,
    align_words,
    chains,
    number_within_pages,
    set_type,
    set_type_in_html,
)
from i2i_book.runs import root

ROOT = Path(__file__).resolve().parents[2]
PYTHON = {"name": "python", "pygments_lexer": "ipython3"}
WASM = "onnxruntime/ort-wasm-simd-threaded.asyncify.wasm.gzip"
PACKED = "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm"


# A library of which the reference shows all that is public and documented, and nothing else.
COUNTS = '''"""Counts of things. Nothing else."""
from typing import Literal
from torch import nn
Kind = Literal["few", "many"]  # how many there are
class Basket(nn.Module):
    """Things in a basket."""
    size: int = 2  # of the things
    _kept: int = 0
    def requires_grad_(self): ...  # without a docstring, though PyTorch has one
def count(kind: Kind) -> int:
    """Number of things, as `Basket` holds them."""
def undocumented(): ...
def _secret():
    """Nothing."""
'''


def picture(name: str):
    """A code cell that has shown a picture."""
    output = new_output("display_data", {"image/png": base64.b64encode(server.picture(0)).decode()})
    figure = {"caption": f"The picture {name}, as in {{numref}}`{name}`.", "name": name}
    metadata = {"mystnb": {"image": {"alt": "A square of noise"}, "figure": figure}}
    return new_code_cell("show()", execution_count=2, outputs=[output], metadata=metadata)


def run(book: Path, name: str, preset: str = "cpu", **more):
    """Put an executed notebook where the runner would have published it; returns its path."""
    base, _, arm = name.partition("-gcka")[0].partition("04-distillation-")
    source = "04-distillation" if arm or "gcka" in name else base
    arm = arm or ("gcka" if "gcka" in name else None)
    parameters = {"steps": 100, "run": preset, "arms": ["gcka", "a|b"]}
    machine = {"cpu": "A Processor", "cores": 2, "gpu": None, "os": "Linux"}
    meta = facts(source, preset, **({"arm": arm, "parameters": parameters, "machine": machine} | more))
    cells = [
        new_markdown_cell(f"# Title of {source}\n\nA question, see {{eq}}`eq-{source}` and {{numref}}`fig-{source}`."),
        new_code_cell("steps: int = 100  # steps", execution_count=1, metadata={"tags": ["parameters"]}),
        picture(f"fig-{source}"),
        new_markdown_cell(f"(sec-{source})=\n## Part\n\n$$ a^2 $$ (eq-{source})\n\nSee [there](#sec-{source})."),
    ]
    notebook = new_notebook(cells=cells, metadata={"i2i": meta, "language_info": PYTHON})
    inside = preset if name.startswith("06") else f"{preset}/{meta['task']}/seed{meta['seed']}"
    path = book.parent / "runs" / inside / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return checkout(tmp_path)


def page(book: Path, docname: str) -> str:
    return "\n".join(cell.source for cell in nbformat.read(book / f"{docname}.ipynb", as_version=4).cells)


def status(book: Path, docname: str) -> str:
    row = next(line for line in (book / "status.md").read_text().splitlines() if f"`/{docname}`" in line)
    return row.split("|")[3].strip()


def test_the_contents_are_the_committed_pages_and_the_notebooks(book: Path):
    fill(book, "cpu")
    listed = set(re.findall(r"(?:root|file): *(\S+)", (book / "notebooks/_toc.yml").read_text()))
    prose = {path.stem for path in (ROOT / "book").glob("*.md")} | {"status"}
    assert {name for name in listed if "/" not in name} == prose
    # The pruning chapter for label maps has pages only where such a task was run; the students are part of chapter 4.
    own = set(CHAPTERS) - {"03-pruning-gaugan", "04-students"}
    assert {Path(name).name for name in listed if "/" in name} == own


def test_what_stress_found_is_shown(book: Path):
    record = book / "stress.json"
    record.unlink(missing_ok=True)
    fill(book, "cpu")
    assert "has not been run yet" in (book / "notebooks/stress.md").read_text()
    made = {"date": "2026-11-22", "seconds": 3700, "torch": "2.15.0", "machine": {"cpu": "A Processor", "cores": 2}}
    made["machine"]["gpu"] = None
    kills = {"kills": 50, "chains": 25, "differing": 0, "files": 31, "victims": {"kernel": 30, "runner": 20}}
    for differing, said in ((0, "all of them ended with the 31 files"), (2, "**2 did not** end")):
        record.write_text(json.dumps({"kills": kills | made | {"differing": differing}}))
        fill(book, "cpu")
        shown = (book / "notebooks/stress.md").read_text()
        assert "50 times (kernel 30, runner 20)" in shown and said in shown
        assert "2026-11-22 | 1 h 1 min | 2 cores of A Processor | PyTorch 2.15.0" in shown


def test_the_config_loads_nothing_from_afar_and_executes_nothing():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    assert "http" not in json.dumps(config)


def test_an_entry_that_did_not_run_is_a_stub_that_names_the_command(book: Path):
    (book / "static/models/fluent").mkdir(parents=True)  # of another preset
    pages = fill(book, "cpu")
    assert all(p.executed is None for p in pages)
    for p in pages:
        text = page(book, p.docname)
        assert text.startswith(f"# Title of {p.source.stem}")
        assert "Not run" in text and "make book PRESET=cpu" in text and status(book, p.docname) == "not run"
    assert "has not been run" in (book / "notebooks/headline.md").read_text()
    demo = (book / "notebooks/demo.md").read_text()
    assert "Not run" in demo and "make book PRESET=cpu" in demo
    assert not (book / "static/models").exists()


def test_the_command_for_what_is_shown_as_recorded_runs_it(book: Path, monkeypatch, tmp_path: Path):
    """Else it would be shown again."""
    monkeypatch.setattr("i2i_book.runs.root", lambda: tmp_path / "checkout")
    monkeypatch.delenv("RECORDED", raising=False)
    recording = tmp_path / "checkout" / "book" / "recorded" / "numbers"
    (recording / "fluent").mkdir(parents=True)
    (recording / "manifest.json").touch()
    fill(book, "numbers")
    texts = [page(book, "notebooks/01-data")]
    texts += [(book / "notebooks" / name).read_text() for name in ("demo.md", "headline.md")]
    assert all("`make book PRESET=numbers RECORDED=no`" in text for text in texts)
    assert command("numbers", "earth") == "make book PRESET=numbers TASK=earth", "which it does not have"
    (tmp_path / "checkout" / "runs" / "numbers").mkdir(parents=True)
    assert command("numbers") == "make book PRESET=numbers", "which was begun here"


def test_a_run_gets_its_line_below_the_title(book: Path):
    run(book, "03-pruning", precision="bf16")
    run(book, "03-pruning", seed=1)
    fill(book, "cpu")
    first, strip, rest = page(book, "notebooks/03-pruning").split("\n\n", 2)
    assert first == "# Title of 03-pruning" and strip == "```{method-map} scales threshold student\n```"
    assert '<a href="../_sources/notebooks/03-pruning.ipynb" download>' in rest
    head, said = rest.split("\n\n")[:2]
    assert re.fullmatch(r'<details class="run-line"><summary [^>]+>Fresh <span [^>]+>i</span></summary>', head)
    assert said.startswith("preset cpu · task fluent · seed 0 · 2026-11-20 08:03 UTC · 2 min 5 s on")
    assert "bf16" in rest and "<run-notebooks-03-pruning>" in rest and "Smoke run" not in rest
    listed = (book / "status.md").read_text()
    assert "(run-notebooks-03-pruning)=" in listed and "| 03-pruning | fluent | 1 | cpu | fresh |" in listed


@pytest.mark.parametrize("now, expected", [(("s", "m"), "fresh"), (("x", "m"), "stale"), (("s", "x"), "stale")])
def test_a_page_is_fresh_only_if_notebook_and_modules_are_unchanged(book: Path, now, expected):
    run(book, "01-data")
    fill(book, "cpu", now)
    assert status(book, "notebooks/01-data") == expected
    (book.parent / "notebooks/01-data.ipynb").unlink()
    fill(book, "cpu")
    assert status(book, "notebooks/01-data") == "stale"


def test_smoke_pages_say_so_and_leave_nothing_to_another_preset(book: Path):
    run(book, "01-data", preset="smoke")
    run(book, "02-search-space")
    (book.parent / "runs/smoke/headline.md").write_text("A number.")
    fill(book, "smoke")
    headline = (book / "notebooks/headline.md").read_text()
    assert "A number." in headline and "{admonition} Smoke run" in headline
    assert "{admonition} Smoke run" in page(book, "notebooks/01-data")
    assert status(book, "notebooks/01-data") == "smoke"
    (book / "notebooks/left-over.ipynb").write_text("{}")
    fill(book, "cpu")
    assert "Not run" in page(book, "notebooks/01-data") and "Fresh" in page(book, "notebooks/02-search-space")
    assert not (book / "notebooks/left-over.ipynb").exists()
    assert "A number." not in (book / "notebooks/headline.md").read_text()


def test_pages_of_further_tasks_have_labels_of_their_own(book: Path):
    run(book, "04-distillation-gcka")
    run(book, "04-distillation-gcka", task="openmoji")
    fill(book, "cpu")
    main, other = page(book, "notebooks/04-distillation"), page(book, "tasks/openmoji/04-distillation")
    assert other.startswith("# 4. Title of 04-distillation (openmoji)\n")
    assert "(sec-04-distillation)=" in main and "[there](#sec-04-distillation)" in main
    assert "(sec-04-distillation-openmoji-04-distillation)=" in other
    assert "{eq}`eq-04-distillation-openmoji-04" in other
    cells = nbformat.read(book / "tasks/openmoji/04-distillation.ipynb", as_version=4).cells
    figure = cells[2].metadata.mystnb.figure
    assert figure.name == "fig-04-distillation-openmoji-04-distillation"
    assert f"`{figure.name}`" in figure.caption


def test_a_part_of_a_chapter_stands_before_its_last_section_and_variants_can_be_downloaded(book: Path):
    for name in ("04-distillation-gcka", "04-distillation-none", "04-students"):
        run(book, name)
    path = book.parent / "runs/cpu/fluent/seed0/notebooks/04-students.ipynb"
    part = nbformat.read(path, as_version=4)
    part.cells = [new_markdown_cell("# Side by side\n\n*Which?*"), new_markdown_cell("## Losses"), *part.cells[1:2]]
    nbformat.write(part, path)
    main = book.parent / "runs/cpu/fluent/seed0/notebooks/04-distillation-gcka.ipynb"
    notebook = nbformat.read(main, as_version=4)
    notebook.cells.append(new_markdown_cell("## Try it"))
    nbformat.write(notebook, main)
    fill(book, "cpu")
    text = page(book, "notebooks/04-distillation")
    places = [
        text.index(x) for x in ("## Side by side", "### Losses", "executed/04-distillation-none.ipynb", "## Try it")
    ]
    assert places == sorted(places)
    assert (book / "notebooks/executed/04-distillation-none.ipynb").exists()
    assert not (book / "notebooks/04-distillation-none.ipynb").exists()


def test_a_page_leaves_out_what_is_not_for_its_reader(book: Path):
    path = run(book, "01-data")
    notebook = nbformat.read(path, as_version=4)
    said = new_output("stream", name="stdout", text="said")
    kept = {
        "for drawings": new_markdown_cell("for drawings", metadata={"tags": ["only-fluent"]}),
        "with pairs": new_markdown_cell("with pairs", metadata={"tags": ["only-pix2pix", "only-cyclegan"]}),
        "from labels": new_markdown_cell("from labels", metadata={"tags": ["only-gaugan"]}),
        "above what is silent": new_markdown_cell("above what is silent", metadata={"tags": ["if-output"]}),
        "silent": new_code_cell("silent", metadata={"tags": ["if-output"]}),
        "above what speaks": new_markdown_cell("above what speaks", metadata={"tags": ["if-output"]}),
        "prepares": new_code_cell("prepares", metadata={"tags": ["remove-input"]}),
        "speaks": new_code_cell("speaks", metadata={"tags": ["if-output"]}, outputs=[said]),
        "method": new_code_cell("method"),
    }
    notebook.cells += kept.values()
    nbformat.write(notebook, path)
    fill(book, "cpu")
    cells = nbformat.read(book / "notebooks/01-data.ipynb", as_version=4).cells
    gone = {cell.source for cell in cells if "remove-cell" in cell.metadata.get("tags", [])}
    assert gone == {"steps: int = 100  # steps", "from labels", "above what is silent", "silent", "prepares"}
    assert {cell.source for cell in cells} >= set(kept), "the download is whole"


def test_a_page_speaks_of_the_family_that_chapter_1_chose(book: Path):
    path = run(book, "01-data", task="folder")
    (path.parents[1] / "data.json").write_text('{"family": "cyclegan"}')  # by its name it would have pairs
    notebook = nbformat.read(path, as_version=4)
    tags = ["only-pix2pix", "only-cyclegan", "only-folder"]
    notebook.cells += [new_markdown_cell(tag, metadata={"tags": [tag]}) for tag in tags]
    nbformat.write(notebook, path)
    fill(book, "cpu")
    cells = nbformat.read(book / "tasks/folder/01-data.ipynb", as_version=4).cells
    gone = [cell.source for cell in cells if "remove-cell" in cell.metadata.get("tags", [])]
    assert gone == ["steps: int = 100  # steps", "only-pix2pix"]


@pytest.mark.parametrize("paired, caption", [(True, "and the truth"), (False, "no truth")])
def test_a_figure_has_the_caption_of_its_test(book: Path, paired, caption):
    """Which may be of pairs where the training is not."""
    path = run(book, "01-data", task="earth-unpaired")
    (path.parents[1] / "data.json").write_text(json.dumps({"family": "cyclegan", "test": {"paired": paired}}))
    notebook = nbformat.read(path, as_version=4)
    figure = {"mystnb": {"figure": {"caption": "and the truth", "name": "fig-x"}}, "captions": {"unpaired": "no truth"}}
    notebook.cells.append(new_code_cell("figure", metadata=figure))
    nbformat.write(notebook, path)
    fill(book, "cpu")
    made = nbformat.read(book / "tasks/earth-unpaired/01-data.ipynb", as_version=4)
    [cell] = [cell for cell in made.cells if cell.source == "figure"]
    assert cell.metadata["mystnb"]["figure"]["caption"] == caption


def test_the_last_change_of_a_notebook_is_that_of_its_history(tmp_path):
    def git(*words: str, at: Path = tmp_path / "a") -> None:
        named = ["-c", "user.name=A", "-c", "user.email=a@b.invalid"]
        subprocess.run(["git", "-C", str(at), *named, *words], check=True, capture_output=True)

    (tmp_path / "a").mkdir()
    git("init")
    for name, subject in (("one", "{{ x }} `y` \u00e9 <b>*z*</b>"), ("two", "Another")):
        (tmp_path / "a" / f"{name}.ipynb").touch()
        assert last_change(tmp_path / "a" / f"{name}.ipynb") == ""
        git("add", ".")
        git("commit", "-m", subject)
    said = last_change(tmp_path / "a" / "one.ipynb")
    assert not set(said) & set("{}`<>*") and unescape(said).endswith(": {{ x }} `y` \u00e9 <b>*z*</b>. ")
    git("clone", "--depth", "1", f"file://{tmp_path / 'a'}", str(tmp_path / "b"))
    assert last_change(tmp_path / "b" / "one.ipynb") == "", "a clone without its history does not know"


def test_numbers_keep_their_units_and_minus_signs_are_no_hyphens():
    assert set_type("-0.012 to +3 % at 64 px, -.5") == "\u22120.012 to +3\u00a0% at 64\u00a0px, \u2212.5"
    assert set_type("30% of 5 %") == "30\u00a0% of 5\u00a0%"
    times = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"
    assert set_type("5 \u00d7 5, 3 \u00d7 256 \u00d7 256 px") == f"5{times}5, 3{times}256{times}256\u00a0px"
    for same in ("2026-11-20", "fp-16", "GPT-2", "pages 3-7", "12 percent", "a - b", "[1]-2", "3 \u00d7 n"):
        assert set_type(same) == same
    html = '<td style="left: -1px">-1</td><code>-1 ms</code><svg><text>-2</text></svg><p>3 ms</p>'
    wanted = '<td style="left: -1px">\u22121</td><code>-1 ms</code><svg><text>-2</text></svg><p>3\u00a0ms</p>'
    assert set_type_in_html(html) == wanted


def test_columns_of_words_are_told_from_those_of_numbers():
    table = pd.DataFrame({"a": ["x", ""], "b": ["\N{MINUS SIGN}1.0", "none"], "c": ["3 M", "5"]}, index=["r", "s"])
    found = align_words(f"<p>1</p>{table.to_html()}")
    assert re.findall(r'<(t[hd]) class="words">([^<]*)<', found) == [("th", "a"), ("td", "x"), ("td", "")]
    assert found.startswith("<p>1</p><table")
    assert align_words(table.to_html(index=False)).count('class="words"') == 3


def test_next_ends_with_the_last_chapter(book: Path):
    run(book, "01-data", task="openmoji")
    fill(book, "cpu")
    main, other = chains(book / "notebooks" / "_toc.yml")
    assert main[0] == "intro" and main[-1] == "your-own-images" and len(main) <= 17
    assert other == ["tasks/openmoji/01-data"]
    assert not {"status", "glossary", "reproduce"} & {*main, *other}


def test_next_ends_wherever_sphinx_is_started(book: Path):
    """Jupyter Book names the contents by their full path, Sphinx by one below the pages."""
    fill(book, "cpu")
    for toc in (str(book / "notebooks" / "_toc.yml"), "notebooks/_toc.yml"):
        app, context = SimpleNamespace(srcdir=book, config=SimpleNamespace(external_toc_path=toc)), {}
        _end_chain(app, "intro", "page.html", context, None)
        assert context == {"prev": None}


def test_figures_of_a_page_without_a_number_count_from_1_on_it():
    numbers = {"chapter": {"figure": {"a": (3, 1)}}, "page": {"figure": {"b": (91,), "c": (92,), "d": (9,)}}}
    env = SimpleNamespace(toc_fignumbers=numbers, toc_secnumbers={"chapter": {"": (3,)}})
    number_within_pages(None, env)
    assert numbers == {"chapter": {"figure": {"a": (3, 1)}}, "page": {"figure": {"d": (1,), "b": (2,), "c": (3,)}}}


def test_the_newest_sphinx_gets_every_extension_of_the_book():
    script = (root() / ".ci" / "plain").read_text()
    installed = script.partition("pip install")[2].partition("\n\n")[0].split()
    config = yaml.safe_load((root() / "_config.yml").read_text())["sphinx"]["config"]["extensions"]
    others = {name for name in config if not name.startswith(("sphinx.ext.", "i2i_book."))} - {"jupyter_book"}
    packages = {"autoapi.extension": "sphinx-autoapi"}
    assert {packages.get(name, re.sub("[_.]", "-", name)) for name in others} <= set(installed)
    assert not any("jupyter" in name for name in installed)


def test_the_scan_names_what_is_wrong(tmp_path: Path):
    (tmp_path / "a.css").write_text("b { background: url(//fonts.invalid/x.woff) }")
    (tmp_path / "b.html").write_text('<p id="here">')
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">ok</a> <a href="b.html#gone">1</a> <a href="c.html">2</a> <a href="https://far.invalid">ok</a>'
        '<img src="https://far.invalid/x.png" alt="x"><script src="a.css"></script><img src="a.css">'
        '<link rel="stylesheet" href="https://far.invalid/y.css"><iframe src="//far.invalid"></iframe>'
    )
    found = "\n".join(faults(tmp_path))
    for part in ("b.html#gone, where there is no #gone", "c.html, which", "x.png", "y.css", "//far.invalid", "no alt"):
        assert part in found
    assert "a.css: loads the remote //fonts.invalid/x.woff" in found
    assert len(faults(tmp_path)) == 7


def test_a_strict_build_with_runs_and_stubs_and_how_it_fails(book: Path, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # what is documented here is not the library that the build itself needs
    top = book.parent
    shutil.copy(ROOT / "package.json", top)
    (top / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks/fluent-screening.md", top / "benchmarks")  # which a page offers for download
    wanted = json.loads((top / "package.json").read_text())["dependencies"]
    for name, files in SCRIPTS.items():  # stand-ins, so that this test needs no network
        for path in ("package.json", *files):
            (top / "node_modules" / name / path).parent.mkdir(parents=True, exist_ok=True)
            (top / "node_modules" / name / path).write_text(json.dumps({"version": wanted[name]}))
    (top / "i2i_lib").mkdir()
    (top / "i2i_lib/__init__.py").touch()
    (top / "i2i_lib/counts.py").write_text(COUNTS)
    (book / "reference/i2i_lib/counts").mkdir(parents=True)
    (book / "reference/i2i_lib/counts/index.md").write_text("# Of a build that was killed")
    (top / "i2i_book").symlink_to(ROOT / "i2i_book")  # the pages' templates
    demo = top / "runs/cpu/fluent/seed0/demo"
    demo.mkdir(parents=True)
    network = {"name": "student-gcka", "label": "Student", "macs": {"8": 1}, "parameters": 1, "bytes": 1}
    about = {"task": "fluent", "size": 8, "sizes": [8], "examples": 2, "first": 0, "main": "student-gcka"}
    about |= {"names": ["one", "two"], "domains": ["map", "satellite"]}
    about |= {"networks": [network | {"precision": "fp32"}], "world": {"brushes": {"sea": [0, 0]}}}
    (demo / "demo.json").write_text(json.dumps(about))
    for name in ("sources", "truths", "student-gcka"):
        Image.new("RGB", (16, 8)).save(demo / f"{name}.webp")
    for name in ("01-data", "04-distillation-gcka", "04-distillation-none"):
        run(book, name)
    run(book, "03-pruning", seed=2)
    notebook = nbformat.read(path := run(book, "02-search-space"), as_version=4)
    notebook.cells.append(new_markdown_cell("Counted by `counts.count()`."))
    nbformat.write(notebook, path)
    fill(book, "cpu")
    html = build(top)
    assert (
        'href="../reference/i2i_lib/counts/index.html#i2i_lib.counts.count"'
        in (html / "notebooks/02-search-space.html").read_text()
    )
    reference = (html / "reference/i2i_lib/counts/index.html").read_text()
    links = {'"#i2i_lib.counts.Kind"', '"#i2i_lib.counts.Basket"', '_modules/i2i_lib/counts.html#count"'}
    for shown in {"of the things", "how many there are", "torch.nn.Module", *links}:
        assert shown in reference, shown
    for gone in ("_secret", "_kept", "undocumented", "requires_grad_", 'rel="next"'):
        assert gone not in reference, gone
    assert "counts</span></code></a>: Counts of things.</p>" in (html / "api.html").read_text()
    assert html == top / "_build/html" and "run-line" in (html / "notebooks/01-data.html").read_text()
    assert 'alt="A square of noise"' in (html / "notebooks/01-data.html").read_text()
    assert 'data-models="_static/models/fluent/"' in (html / "demo.html").read_text()
    assert (html / "_static/models/fluent/demo.json").exists()
    data = (html / "notebooks/01-data.html").read_text()
    assert 'rel="next"' in data and 'rel="next"' not in (html / "glossary.html").read_text()
    assert 'rel="next"' not in (html / "your-own-images.html").read_text()
    assert (html / "_sources/notebooks/01-data.ipynb").exists()
    assert list((html / "_downloads").rglob("04-distillation-none.ipynb"))
    assert not (html / "notebooks/04-distillation-none.html").exists()
    assert gzip.decompress((html / "_static" / WASM).read_bytes()) == (top / "node_modules" / PACKED).read_bytes()

    (top / "_config.yml").write_text("title: [")
    with pytest.raises(RuntimeError, match="was not replaced"):
        build(top)
    assert (html / "notebooks/01-data.html").exists()


def test_a_build_without_the_scripts_is_refused(tmp_path):
    shutil.copy(ROOT / "package.json", tmp_path)
    with pytest.raises(RuntimeError, match=r"node_modules lacks mathjax .* and onnxruntime-web .* and pyodide .*: run"):
        build(tmp_path)


def test_further_tasks_get_parts_of_their_own(book):
    """A task has its pages in the contents if it was run, one for each chapter, and none if it was not."""
    for name in ("01-data", "04-distillation-gcka", "04-distillation-none"):
        run(book, name, task="openmoji")
    run(book, "05-evaluation-ablations", task="openmoji")
    pages = fill(book, "cpu")
    shown = {p.docname.removeprefix("tasks/openmoji/") for p in pages if p.task == "openmoji"}
    assert shown == {"01-data", "04-distillation", "05-evaluation"}
    parts = yaml.safe_load((book / "notebooks" / "_toc.yml").read_text())["parts"]
    chapters = next(part["chapters"] for part in parts if part["caption"] == "The task openmoji")
    assert [entry["file"] for entry in chapters] == [f"tasks/openmoji/{name}" for name in sorted(shown)]
    assert not any("sections" in entry for entry in chapters)
    assert parts[-1]["caption"] == "Reference"


def test_links_lead_to_the_chapter_that_the_task_has(book):
    """A task from labels has a pruning chapter of its own; a link to chapter 3 leads there, and nowhere else."""
    shutil.copy(book.parent / "notebooks/03-pruning.ipynb", book.parent / "notebooks/03-pruning-gaugan.ipynb")
    link = new_markdown_cell("See [chapter 3](03-pruning.ipynb) and [what all tasks share](06-results.ipynb).")
    for task, pruning in (("earth-labels", "03-pruning-gaugan"), ("openmoji", "03-pruning")):
        run(book, pruning, task=task)
        path = run(book, "01-data", task=task)
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.append(link)
        nbformat.write(notebook, path)
    fill(book, "cpu")
    assert "(03-pruning-gaugan.ipynb)" in page(book, "tasks/earth-labels/01-data")
    openmoji = page(book, "tasks/openmoji/01-data")
    assert "(03-pruning.ipynb)" in openmoji and "(/notebooks/06-results.ipynb)" in openmoji
