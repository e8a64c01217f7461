"""Generators to a model hub and back, by a stand-in that answers as the hub does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import TOKEN, Hub, hub
from toys import same, trained

from i2i_lib.checkpoint import load_info, save_generator
from i2i_lib.config import cat_teacher

pytest.importorskip("huggingface_hub")
CONFIG = cat_teacher(4, 3)


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with hub() as server:
        yield server


@pytest.fixture
def student(tmp_path) -> Path:
    save_generator(trained(CONFIG, 1), tmp_path / "student")
    (tmp_path / "student.onnx").write_bytes(b"a network")
    record: dict[str, Any] = {"task": "pairs", "images": 48, "l1": 0.0625, "ssim": 0.75, "feature_distance": None}
    record["weights"] = load_info(tmp_path / "student")["sha256"]
    (tmp_path / "eval.json").write_text(json.dumps(record))
    return tmp_path / "student"


def run(served: Hub, home: Path, *words: object, token: str = TOKEN) -> Any:
    """What Python says as a user starts it: `-m i2i_lib.cli ...` or `-c ...`."""
    settings = {"HF_ENDPOINT": served.address, "HF_HOME": str(home / "cache"), "HF_TOKEN": token}
    settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=os.environ | settings, cwd=home
    )


LOAD = "import sys, torch; from i2i_lib.checkpoint import load_generator; g = load_generator(sys.argv[1]);"
SAVE = f"{LOAD} torch.save(g.state_dict(), sys.argv[2])"


def test_a_generator_goes_to_the_hub_and_comes_back_by_revision(served, student, tmp_path):
    push = ("-m", "i2i_lib.cli", "push", student, "me/tiny", "--licence", "mit", "--results", tmp_path / "eval.json")
    done = run(served, tmp_path, *push)
    assert done.returncode == 0, done.stderr
    address = done.stdout.strip()
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

    save_generator(trained(CONFIG, 2), student)  # and another one under the same name, with a new measurement
    (tmp_path / "eval.json").write_text(
        json.dumps({"task": "pairs", "images": 48, "l1": 0.5, "weights": load_info(student)["sha256"]})
    )
    assert run(served, tmp_path, *push, "--private").returncode == 0
    for asked, seed in ((address, 1), ("hf://me/tiny", 2)):
        loaded = run(served, tmp_path, "-c", SAVE, asked, tmp_path / "loaded.pt")
        assert loaded.returncode == 0, loaded.stderr
        import torch

        assert same(torch.load(tmp_path / "loaded.pt", weights_only=True), trained(CONFIG, seed).state_dict())


def test_what_cannot_be_fetched_is_told(served, student, tmp_path):
    served.commits["me/other"] = [("1" * 40, {"README.md": b"nothing to load"})]
    for address, sentence in {
        "hf://nobody/nothing": "Repository",
        "hf://me/other@none": "Revision",
        "hf://me/other": "holds no generator.safetensors and no generator.json: it was not put there by `i2i push`",
        "hf://tiny": "is no address of a generator: expected hf://owner/name or hf://owner/name@revision",
    }.items():
        done = run(served, tmp_path, "-m", "i2i_lib.cli", "translate", address, "in.png", "out")
        assert done.returncode == 1 and f"error: {address}" in done.stderr, done.stderr
        assert sentence in done.stderr and "Traceback" not in done.stderr


def test_a_push_needs_a_licence_a_measurement_and_a_token(served, student, tmp_path, capsys):
    from i2i_lib.cli.__main__ import main

    push = ["push", str(student), "me/refused"]
    assert main(push) == 1
    assert "name by --licence what its teacher and pictures allow" in capsys.readouterr().err
    assert main([*push, "--licence", "mit"]) == 1
    assert "nothing is known of how good" in capsys.readouterr().err
    (tmp_path / "eval.json").write_text(json.dumps({"weights": "of another", "images": 1, "task": "pairs"}))
    assert main([*push, "--licence", "mit", "--results", str(tmp_path / "eval.json")]) == 1
    assert "holds no measures of this student" in capsys.readouterr().err
    (tmp_path / "eval.json").write_text(
        json.dumps({"weights": load_info(student)["sha256"], "images": 2, "task": "pairs", "l1": 0.1})
    )
    words = ("-m", "i2i_lib.cli", *push, "--licence", "mit", "--results", tmp_path / "eval.json")
    done = run(served, tmp_path, *words, token="wrong")
    assert done.returncode == 1 and "error: hf://me/refused: " in done.stderr and "401" in done.stderr
    assert "me/refused" not in served.commits


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
