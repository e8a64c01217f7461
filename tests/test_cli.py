"""The command `i2i`: help without waiting, results as text or JSON, errors in a sentence."""

import json
import subprocess
import sys

import pytest
from toys import network

from i2i_lib.checkpoint import save_generator
from i2i_lib.cli.__main__ import COMMANDS, main
from i2i_lib.config import cat_teacher
from i2i_lib.data.pictures import write_picture


def test_help_and_wrong_arguments_wait_for_no_library():
    code = "import sys\nfrom i2i_lib.cli.__main__ import main\nprint(main(['export']), 'torch' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout == "1 False\n"
    assert asked.stderr == "error: the following arguments are required: STUDENT (see `i2i export --help`)\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0 and said.startswith(f"usage: i2i {command}".rstrip())
    assert all(name in said for name in (COMMANDS if not command else ["--json"]))


def test_json_is_all_that_the_output_holds(tmp_path, capsys):
    save_generator(network(cat_teacher(4, 3)), tmp_path / "student")
    torch = pytest.importorskip("torch")
    write_picture(torch.zeros(3, 16, 16, dtype=torch.uint8), tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    words = ["translate", str(tmp_path / "student"), str(tmp_path / "in"), str(tmp_path / "out"), "--json"]
    assert main(words) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["out"] == str(tmp_path / "out") and len(record["failed"]) == 1 and "b.png" in record["failed"][0]


WRONG = {
    "train none.json": "none.json does not exist: name the config.json in a training's folder",
    "train student": "student is a folder: name the config.json in a training's folder",
    "translate student in out": "student is a folder: name what it holds, such as student/student",
    "translate latest_net_G.pth in out": "latest_net_G.pth was not saved by this library. `i2i compress` reads",
    "export hf://owner/name": "hf://owner/name is on a hub, and what is exported lies here",
    "export none --demo page": "none.json does not exist: this folder holds no saved network or task",
}


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_is_a_sentence_and_writes_nothing(call, tmp_path, capsys, monkeypatch):
    for name in ("data", "student", "teacher"):
        save_generator(network(cat_teacher(4, 3)), tmp_path / "student" / name)
    (tmp_path / "latest_net_G.pth").write_text("weights of another code")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(call.split()) == 1
    told = capsys.readouterr()
    assert WRONG[call] in told.err and not told.out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_hub_address_without_its_package_names_the_hubs_extra(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["translate", "hf://owner/name", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "pip install 'i2i-lib[hub]'" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "i2i_lib.export.onnx", raising=False)
    assert main(["export", "student"]) == 1
    said = capsys.readouterr().err
    assert "package onnx is not installed" in said and "pip install 'i2i-lib[export]'" in said
