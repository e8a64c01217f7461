"""What a run says of itself, and that the status page holds it against what is on disk."""

import os

import nbformat
from fake_run import source

from i2i_book.pages.status import status_of
from i2i_book.runner.notebook import code_digest
from i2i_book.runner.run import run_notebook
from i2i_book.runs import root
from i2i_lib.files import sha256


def test_the_manifest_holds_what_decides_a_number(tmp_path):
    (root() / "runs").mkdir(exist_ok=True)  # the names in a manifest are relative to it
    (tmp_path / "in.json").write_text("{}")
    writes = f"""
from pathlib import Path
from i2i_lib.files import record_file
folder = Path({str(tmp_path)!r})
record_file('read', folder / 'in')
for name in ('out.json', 'out.safetensors', 'out-of-the-way.json'):
    (record_file('wrote', folder / 'out').parent / name).write_text(name)"""
    path = source(tmp_path / "made.ipynb", 'seed: int = 3\ntask: str = "earth"', writes)
    run_notebook(path, {}, log=tmp_path / "log.ipynb", threads=1)
    facts = nbformat.read(tmp_path / "log.ipynb", as_version=4).metadata["i2i"]
    assert facts["parameters"] == {"seed": 3, "task": "earth"} and facts["seed"] == 3
    assert {"python", "torch", "numpy", "scipy"} <= facts["versions"].keys()
    assert {"cpu", "cores", "gpu", "os"} == facts["machine"].keys()
    assert facts["threads"] == 1 and facts["seconds"] > 0 and facts["peak_memory_mib"] > 0
    assert len(facts["source_sha256"]) == len(facts["modules_sha256"]) == 64
    # Only the two files of the artifact `out`, not another whose name begins alike.
    here = os.path.relpath(tmp_path, root() / "runs")
    assert facts["files"] == {
        "read": {f"{here}/in.json": sha256(tmp_path / "in.json")},
        "wrote": {f"{here}/{name}": sha256(tmp_path / name) for name in ("out.json", "out.safetensors")},
    }
    assert not (tmp_path / "log.files.txt").exists() and "I2I_FILES" not in os.environ

    def status():
        facts["notebook"] = "made"
        return status_of(facts, False, code_digest, tmp_path, root() / "runs")

    assert status() == "fresh"
    (tmp_path / "out.safetensors").write_text("another")
    assert status() == "stale"
    (tmp_path / "out.safetensors").write_text("out.safetensors")
    assert status() == "fresh"
    (tmp_path / "in.json").unlink()
    assert status() == "stale"
