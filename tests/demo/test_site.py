"""`i2i export --demo`: a folder with a page of one's own, and what is refused."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import network, tiles, trained

from i2i_lib.checkpoint import save_generator
from i2i_lib.cli.__main__ import main
from i2i_lib.config import ResnetConfig, cat_spade_teacher, cat_teacher
from i2i_lib.data.store import save_task
from i2i_lib.data.tiles import Task
from i2i_lib.demo.page import RUNTIME
from i2i_lib.export.onnx import session


@pytest.fixture
def home(tmp_path) -> Path:
    """What a compression leaves behind, and a stand-in for the npm package."""
    info = {"domains": ["source", "the teacher's picture"]}
    data = tiles("cyclegan", size=16)
    save_task(Task("pictures", "cyclegan", data, data, info), tmp_path / "data")
    save_generator(trained(cat_teacher(4, 3), 1), tmp_path / "student")
    save_generator(trained(ResnetConfig(8, 3), 2), tmp_path / "teacher")
    for name in RUNTIME:
        (tmp_path / "runtime" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runtime" / name).write_text(f"content of {name}")
    return tmp_path


def export(home: Path, *words: object) -> int:
    given = (home / "student", "--demo", home / "page", "--runtime", home / "runtime", *words)
    return main(["export", *map(str, given), "--json"])


def test_a_page_is_a_folder_that_holds_all_it_loads(home, capsys):
    assert export(home) == 0, capsys.readouterr().err
    page = home / "page"
    record = json.loads(capsys.readouterr().out)
    assert record["bytes"] == sum(path.stat().st_size for path in page.rglob("*") if path.is_file())
    html = (page / "index.html").read_text()
    loads = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert loads and all((page / name).is_file() for name in loads if not name.startswith("data:")), loads
    assert "truths" not in html and "--example: " in html, "without pairs there is no truth to show"
    about = json.loads((page / "models/demo.json").read_text())
    assert [network["name"] for network in about["networks"]] == ["student", "teacher"]
    assert about["own"] and about["names"] == [f"picture {n}" for n in range(1, 9)] and about["palette"]
    for source, name in RUNTIME.items():
        content = (page / "onnxruntime" / name).read_bytes()
        assert (gzip.decompress(content) if name.endswith(".gzip") else content).decode() == f"content of {source}"
    scripts = "\n".join(path.read_text() for path in (page / "demo").iterdir())
    assert all((page / "demo" / name).is_file() for name in re.findall(r'from "\./(\w+\.mjs)"', scripts))

    sources, made = (np.array(Image.open(page / f"models/{name}.webp"), float) for name in ("sources", "student"))
    file = session(page / "models/student.onnx")
    for i in range(about["examples"]):
        part = slice(16 * i, 16 * i + 16)
        source = sources[:, part].transpose(2, 0, 1)[None].astype("f4") / 127.5 - 1
        image = np.asarray(file.run(None, {"source": source})[0])[0].transpose(1, 2, 0)
        assert np.abs((image + 1) * 127.5 - made[:, part]).max() < 0.51


def test_an_earlier_page_is_replaced_and_nothing_else(home, capsys):
    assert export(home) == 0
    (home / "page/models/old.onnx").touch()
    for name in ("teacher.json", "teacher.safetensors"):
        (home / name).unlink()
    assert export(home) == 0, "a teacher may lack"
    assert not (home / "page/models/old.onnx").exists() and "eacher<" not in (home / "page/index.html").read_text()
    (home / "page/models/demo.json").unlink()
    assert export(home) == 1
    assert "exists and holds no demo: name a new folder" in capsys.readouterr().err
    assert (home / "page/index.html").exists()


WRONG = {
    "no data": (("--data", "none"), "none.json does not exist: the page begins with test pictures"),
    "no runtime": (("--runtime", "none"), "ONNX Runtime Web.* is not in none: .*npm install onnxruntime-web@"),
    "no student": (("--teacher", "none"), "none.json does not exist"),
    "a file's option": (("--precision", "int8"), "--precision is for a file, and --demo writes a page"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_call_is_a_sentence_and_writes_nothing(what, home, capsys, monkeypatch):
    words, sentence = WRONG[what]
    monkeypatch.chdir(home)
    before = sorted(home.rglob("*"))
    assert export(home, *words) == 1
    assert re.search(f"^error: .*{sentence}", capsys.readouterr().err, re.M)
    assert sorted(home.rglob("*")) == before


def test_label_maps_cannot_be_drawn(home, capsys):
    save_generator(network(cat_spade_teacher(2, 4, 2)), home / "teacher")
    assert export(home) == 1
    assert "teacher reads label maps or another kind of picture" in capsys.readouterr().err
    assert not (home / "page").exists()
    data = tiles("gaugan", size=16)
    save_task(Task("labels", "gaugan", data, data, {"domains": ["labels", "pictures"]}), home / "data")
    save_generator(network(cat_spade_teacher(2, 4, 2)), home / "student")
    assert export(home) == 1
    assert "holds label maps" in capsys.readouterr().err and not (home / "page").exists()


def test_an_option_of_a_page_needs_one(home, capsys):
    assert main(["export", str(home / "student"), "--teacher", str(home / "teacher")]) == 1
    assert "--teacher is for a page: name its folder by --demo" in capsys.readouterr().err
