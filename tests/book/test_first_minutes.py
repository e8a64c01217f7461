"""The first minutes on a GPU: what a folder of results says, and that no part stops another."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

from i2i_lib.files import root


def benchmark(name: str) -> Any:
    """The script benchmarks/<name>.py as a module."""
    spec = importlib.util.spec_from_file_location(name, root() / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


first = benchmark("first_minutes")
PARTS = {"smoke": 0.3, "speed": 0.4, "memory": 0.5, "resume": 0.5, "teacher": 1.0}


@pytest.fixture
def results(tmp_path) -> Path:
    """A folder whose `memory` was cut off while it wrote, and whose `teacher` never began."""
    about: dict[str, Any] = {"machine": {"gpu": "NVIDIA H200, 580.1", "cpu": "a CPU"}, "torch": "2.15", "commit": "abc"}
    about |= {"started": "2026-12-01T10:00:00+00:00", "rehearsed": False}
    about["parts"] = {"smoke": {"ended": "well", "seconds": 100.2}, "memory": {"ended": "cut off", "seconds": 60.0}}
    (tmp_path / "provenance.json").write_text(json.dumps(about))
    speed = {"what": "teacher", "precision": "bf16", "layout": "NHWC", "compiled": False, "images_per_second": 412.34}
    speed |= {"tflops": 321.0, "share_of_matrices": 0.5, "share_of_peak": 0.325, "memory_gib": 20.0}
    lines = {
        "smoke": [{"green": True, "seconds": 99.0}],
        "speed": [{"what": "product of matrices", "tflops": {"bf16": 640.0}}, speed],
        "memory": [{"what": "all kept", "batch_size": 32, "fits": False}],
        "resume": [
            {
                "what": "as trained",
                "from_step": 30,
                "two_unbroken": {"same_bits": False, "largest_difference": 0.002},
                "resumed": {"same_bits": True, "largest_difference": 0.0},
            }
        ],
    }
    for part, rows in lines.items():
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open(tmp_path / "memory.jsonl", "a") as torn:
        torn.write('{"what": "micro-ba')
    return tmp_path


def test_the_summary_says_what_was_measured_and_what_was_cut_off(results):
    text = first.summary(results)
    assert "2026-12-01, NVIDIA H200, 580.1, torch 2.15, commit abc" in text
    assert "smoke well (100 s), memory cut off (60 s)" in text
    assert "| bf16 | NHWC | False | 412 | 321 | 0.5 | 0.325 | 20 |" in text
    assert "| all kept | 32 | False | - | - | - |" in text and "micro-ba" not in text
    assert "from step 30, as trained: the same bits; two unbroken trainings: losses up to 0.002 apart." in text
    assert "Teacher" not in text and "rehearsal" not in text


def test_losses_are_compared_but_not_their_seconds():
    one = [{"step": 2, "seconds": 1.0, "d": 0.5}, {"step": 4, "seconds": 2.0, "d": 0.25}]
    late = [row | {"seconds": 9.0} for row in one]
    assert first.compare(one, late) == {"same_bits": True, "largest_difference": 0.0}
    other = [one[0], one[1] | {"d": 0.26}]
    found = first.compare(one, other)
    assert not found["same_bits"] and found["largest_difference"] == pytest.approx(0.04)
    assert first.compare(one, one[:1]) == {"same_bits": False, "largest_difference": math.inf}


def test_a_part_that_fails_or_hangs_stops_no_other(tmp_path, monkeypatch, capsys):
    """Each has a share of the time that is left, and what it printed is kept."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$2"\ncase "$2" in speed) exit 3;; memory) exec sleep 60;; esac\n'
        'echo \'{"green": true, "seconds": 1.0}\' >"$3/smoke.jsonl"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(first.sys, "executable", str(python))
    monkeypatch.setattr(first, "PARTS", PARTS)
    out = tmp_path / "out"
    assert first.run(out, 18 / 60, rehearse=True) == 2  # three seconds, after those that are kept for the end
    about = json.loads((out / "provenance.json").read_text())
    assert {name: part["ended"] for name, part in about["parts"].items()} == {
        "smoke": "well", "speed": "failed", "memory": "cut off", "resume": "well", "teacher": "well",
    }  # fmt: skip
    assert about["parts"]["memory"]["limit"] < 2
    assert (out / "speed.log").read_text() == "speed\n"
    assert "Preset smoke: green" in (out / "summary.md").read_text()
    assert f"{out}: 0.0 MiB" in capsys.readouterr().out


def test_it_asks_for_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(first.sys, "argv", ["first_minutes.py", "run", str(tmp_path)])
    monkeypatch.setattr(first, "CUDA", False)
    assert first.main() == 2
    assert "--rehearse" in capsys.readouterr().err
