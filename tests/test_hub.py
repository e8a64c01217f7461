"""Generators to a model hub and back, by a stand-in that answers as the hub does."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import TOKEN, Hub, hub
from toys import same, task, trained

from i2i_lib.checkpoint import load_generator, load_info, save_generator
from i2i_lib.cli.__main__ import main
from i2i_lib.config import cat_teacher
from i2i_lib.data.store import save_task

constants = pytest.importorskip("huggingface_hub.constants")
CONFIG = cat_teacher(4, 3)


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[Hub]:
    """A hub that the settings of the environment lead to."""
    settings = {"HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": TOKEN}
    settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with hub() as server, monkeypatch.context() as changed:
        for name, value in {"HF_ENDPOINT": server.address, **settings}.items():
            changed.setenv(name, value)
        importlib.reload(constants)  # where the package reads them, once
        yield server
    importlib.reload(constants)


@pytest.fixture
def student(tmp_path) -> Path:
    save_generator(trained(CONFIG, 1), tmp_path / "student")
    (tmp_path / "student.onnx").write_bytes(b"a network")
    measured(tmp_path / "student", {"l1": 0.0625, "ssim": 0.75, "feature_distance": None})
    return tmp_path / "student"


def measured(student: Path, values: dict[str, Any]) -> None:
    """What `i2i evaluate --json` says of a student, in part."""
    record = {"task": "pairs", "images": 48, "weights": load_info(student)["sha256"], **values}
    student.with_name("eval.json").write_text(json.dumps(record))


def push(student: Path, repository: str, *words: str) -> int:
    results = str(student.with_name("eval.json"))
    return main(["push", str(student), repository, "--licence", "mit", "--results", results, *words])


def test_a_generator_goes_to_the_hub_and_comes_back_by_revision(served, student, capsys):
    assert push(student, "me/tiny") == 0, capsys.readouterr().err
    address = capsys.readouterr().out.strip()
    (_, (oid, files)) = served.commits["me/tiny"]
    assert address == f"hf://me/tiny@{oid}" and not served.private
    assert set(files) == {"generator.safetensors", "generator.json", "generator.onnx", "README.md"}
    assert files["generator.onnx"] == b"a network"
    _, header, body = files["README.md"].decode().split("---\n", 2)
    card = yaml.safe_load(header)
    assert (card["license"], card["library_name"]) == ("mit", "i2i-lib")
    (results,) = card["model-index"][0]["results"]
    assert results["dataset"]["name"] == "48 test pictures of pairs"
    assert {found["type"]: found["value"] for found in results["metrics"]} == {"l1": 0.0625, "ssim": 0.75}
    assert "48 test pictures" in body and "hf://me/tiny" in body

    save_generator(trained(CONFIG, 2), student)  # and another one under the same name
    assert push(student, "me/tiny") == 1, "its measurement is another's"
    measured(student, {"l1": 0.5})
    assert push(student, "me/tiny") == 0
    assert same(load_generator(address), trained(CONFIG, 1)) and same(
        load_generator("hf://me/tiny"), trained(CONFIG, 2)
    )
    assert push(student, "me/secret", "--private") == 0 and served.private == {"me/secret"}


def test_a_generator_on_a_hub_is_measured_there(served, student, tmp_path, capsys):
    assert push(student, "me/tiny") == 0, capsys.readouterr().err
    save_task(task(), tmp_path / "data")
    capsys.readouterr()
    assert main(["evaluate", "hf://me/tiny", str(tmp_path / "data"), "--json"]) == 0, capsys.readouterr().err
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == "tiny" and record["weights"] == load_info(student)["sha256"]


def test_what_cannot_be_fetched_is_told(served, tmp_path, capsys):
    served.commits["me/other"] = [("1" * 40, {"README.md": b"nothing to load"})]
    for address, sentence in {
        "hf://nobody/nothing": "Repository",
        "hf://me/other@none": "Revision",
        "hf://me/other": "holds no generator.safetensors and no generator.json: it was not put there by `i2i push`",
        "hf://tiny": "is no address of a generator: expected hf://owner/name or hf://owner/name@revision",
    }.items():
        assert main(["translate", address, "in.png", str(tmp_path / "out")]) == 1
        said = capsys.readouterr().err
        assert f"error: {address}" in said and sentence in said
    assert main(["compress", "hf://nobody/nothing", str(tmp_path), str(tmp_path / "out"), "--share", "0.1"]) == 1
    assert "error: hf://nobody/nothing: " in capsys.readouterr().err


def test_a_push_needs_a_licence_a_measurement_and_a_token(served, student, capsys, monkeypatch):
    words = ["push", str(student), "me/refused"]
    assert main(words) == 1
    assert "name by --licence what its teacher and pictures allow" in capsys.readouterr().err
    assert main([*words, "--licence", "mit"]) == 1
    assert "nothing is known of how good" in capsys.readouterr().err
    measured(student, {"weights": "of another"})
    assert push(student, "me/refused") == 1
    assert "holds no measures of this student" in capsys.readouterr().err
    measured(student, {"l1": 0.1})
    assert push(student, "refused") == 1
    assert "a repository is owner/name, got 'refused'" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert push(student, "me/refused") == 1
    said = capsys.readouterr().err
    assert "error: hf://me/refused: " in said and "401" in said and "me/refused" not in served.commits


def test_a_students_compression_is_its_measurement(tmp_path):
    from i2i_lib.cli import push

    save_generator(trained(CONFIG, 1), tmp_path / "student")
    value = {"mean": 0.01, "low": 0.009, "high": 0.011}
    cost = {"kind": "ResnetGenerator", "macs": 10, "params": 10, "ms": 1.0, "peak_mib": 1.0, "device": "cpu"}
    record = {"weights": load_info(tmp_path / "student")["sha256"], "test_pictures": 7, "size": 64, "pairs": False}
    record |= {"l1_to_teacher": value, "teacher": cost, "student": cost, "budget": "--share 0.1"}
    record |= {"training": {"steps": 1, "seconds": 1.0, "pictures": 3}, "onnx": {"ms": 1.0}}
    (tmp_path / "compress.json").write_text(json.dumps({"record": record}))
    measured, pictures, body = push._compression(tmp_path / "student", record["weights"])
    assert measured == {"l1_to_teacher": 0.01} and pictures.startswith("7 pictures") and "--share 0.1" in body
    with pytest.raises(ValueError, match="nothing is known"):
        push._compression(tmp_path / "student", "of another")
