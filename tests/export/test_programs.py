"""Programs of PyTorch and ExecuTorch make the generator's pictures, and all formats stand side by side."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import network, tiles, trained

from i2i_lib.checkpoint import save_generator
from i2i_lib.cli.__main__ import main
from i2i_lib.config import ResnetConfig, cat_spade_teacher, cat_teacher
from i2i_lib.data.store import save_task
from i2i_lib.data.tiles import Task
from i2i_lib.export import programs
from i2i_lib.export.compare import about_int8, compare_formats
from i2i_lib.export.programs import export_pt2, export_pte, run_pte


def saved(config: Any, folder: Path) -> Any:
    generator = trained(config, 1)
    save_generator(generator, folder / "student")
    return generator


@pytest.mark.parametrize("config", [cat_teacher(4, 3), ResnetConfig(4, 3, "batch")], ids=["inception", "resnet"])
def test_a_torch_program_runs_without_this_library_at_any_size(config, tmp_path):
    generator = saved(config, tmp_path)
    done = export_pt2(tmp_path / "student")
    assert done.path == tmp_path / "student.pt2" and done.size == done.path.stat().st_size and done.largest <= 1e-4
    run = torch.export.load(done.path).module()
    for size in ((16, 32), (52, 40)):
        picture = 2 * torch.rand(1, 3, *size) - 1
        with torch.no_grad():
            torch.testing.assert_close(run(picture), generator(picture), atol=1e-4, rtol=0)


def test_a_program_that_disagrees_is_not_written(tmp_path, monkeypatch):
    saved(cat_teacher(4, 3), tmp_path)
    right = programs.run_pt2
    monkeypatch.setattr(programs, "run_pt2", lambda data: lambda picture: right(data)(picture) + 2e-4)
    with pytest.raises(ValueError, match=r"\.pt2 program does not agree with PyTorch \(largest difference 0.000"):
        export_pt2(tmp_path / "student", size=16)
    assert not (tmp_path / "student.pt2").exists()


def test_a_generator_of_labels_is_refused(tmp_path):
    save_generator(network(cat_spade_teacher(2, 4, 2)), tmp_path / "student")
    for export in (export_pt2, export_pte) if "executorch" in sys.modules else (export_pt2,):
        with pytest.raises(ValueError, match="only inception and ResNet generators are exported"):
            export(tmp_path / "student")


def test_an_executorch_program_makes_the_pictures(tmp_path):
    pytest.importorskip("executorch")
    generator = saved(cat_teacher(4, 3), tmp_path)
    done = export_pte(tmp_path / "student", size=32)
    picture = 2 * torch.rand(1, 3, 32, 32) - 1
    with torch.no_grad():
        made = run_pte(done.path.read_bytes())(picture)
        torch.testing.assert_close(made, generator(picture), atol=1e-4, rtol=0)


def test_without_executorch_its_extra_is_named(tmp_path, monkeypatch, capsys):
    saved(cat_teacher(4, 3), tmp_path)
    monkeypatch.setitem(sys.modules, "executorch", None)
    assert main(["export", str(tmp_path / "student"), "--to", "pte"]) == 1
    assert "package executorch is not installed" in (said := capsys.readouterr().err)
    assert "pip install 'i2i-lib[phone]'" in said and not (tmp_path / "student.pte").exists()


def test_the_formats_side_by_side(tmp_path, monkeypatch, capsys):
    saved(cat_teacher(4, 3), tmp_path)
    data = tiles(size=32)
    save_task(Task("toy", "pix2pix", data, data, {"domains": ["A", "B"]}), tmp_path / "data")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("i2i_lib.export.compare.find_spec", lambda name: None)
    rows = {row["format"]: row for row in compare_formats(tmp_path / "student", tmp_path / "data")}
    assert list(rows) == ["PyTorch", "ONNX fp32", "ONNX fp16", "ONNX int8", "torch.export"]
    assert sorted(tmp_path.iterdir()) == before
    assert rows["PyTorch"]["l1_to_pytorch"] == 0 and rows["PyTorch"]["bytes"] is None
    assert rows["ONNX fp32"]["l1_to_pytorch"] < 1e-4 < rows["ONNX int8"]["l1_to_pytorch"]
    for row in rows.values():
        assert row["ms"] > 0 and row["pictures"] == len(data)
        assert abs(row["l1_to_target"] - rows["PyTorch"]["l1_to_target"]) <= row["l1_to_pytorch"] + 1e-6

    monkeypatch.setattr("i2i_lib.export.compare.compare_formats", lambda student, data: list(rows.values()))
    assert main(["export", str(tmp_path / "student"), "--compare"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in rows) and about_int8(list(rows.values())) in said
    assert main(["export", str(tmp_path / "student"), "--compare", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == list(rows.values())
    assert main(["export", str(tmp_path / "student"), "--compare", "--to", "pt2"]) == 1
    assert "--to is for a file, and --compare writes nothing" in capsys.readouterr().err


def test_int8_is_called_slower_where_it_is():
    full: dict[str, Any] = {"format": "ONNX fp32", "ms": 4.0, "l1_to_pytorch": 0.0, "l1_to_target": 0.1}
    small: dict[str, Any] = {"format": "ONNX int8", "ms": 5.0, "l1_to_pytorch": 0.01, "l1_to_target": 0.12}
    slower = about_int8([full, small])
    assert slower.startswith("int8 is no faster on this processor, 5.00 ms in place of 4.00") and "take fp32" in slower
    assert "0.0100 from PyTorch's in L1, and 0.1200 from the targets, where fp32's are 0.1000" in slower
    faster = about_int8([full, small | {"ms": 2.0}])
    assert faster.startswith("int8 is 2.0 times as fast on this processor") and "0.1200" in faster
    for row in (full, small):
        del row["l1_to_target"]
    assert "targets" not in about_int8([full, small])
