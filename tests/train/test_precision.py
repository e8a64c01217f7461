"""The arithmetic that a training settles on."""

import json

import pytest
import torch

from i2i_lib.files import write_json
from i2i_lib.train import precision
from i2i_lib.train.precision import settle, step_seconds

CPU = torch.device("cpu")


@pytest.fixture
def timed(monkeypatch):
    """What a step takes by precision, and the calls that asked."""
    seconds, asked = {"bf16": 2.0, "fp32": 1.0}, []
    monkeypatch.setattr(precision, "step_seconds", lambda kind: asked.append(kind) or seconds[kind])
    return seconds, asked


def test_the_faster_one_is_measured_once_for_a_processor(timed, tmp_path, monkeypatch):
    seconds, asked = timed
    memo, recipe = tmp_path / "precision.json", tmp_path / "config.json"
    assert settle("auto", recipe, memo, CPU) == "fp32"
    seconds["bf16"] = 0.5
    assert settle("auto", recipe, memo, CPU) == "fp32", "the answer is kept"
    monkeypatch.setattr(precision, "processor", lambda: "another")
    assert settle("auto", recipe, memo, CPU) == "bf16"
    assert asked == ["bf16", "fp32"] * 2
    assert json.loads(memo.read_text())["processor"] == "another"


def test_a_training_goes_on_in_what_it_began_with(timed, tmp_path):
    write_json(tmp_path / "config.json", {"training": {"precision": "bf16"}})
    for device in (CPU, torch.device("cuda")):
        assert settle("auto", tmp_path / "config.json", tmp_path / "memo.json", device) == "bf16"
    assert settle("fp32", tmp_path / "config.json", tmp_path / "memo.json", CPU) == "fp32", "unless it is told"
    assert not timed[1]


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="precision is one of bf16, fp16, fp32, tf32, got 'fp8'"):
        settle("fp8", tmp_path / "config.json", tmp_path / "memo.json", CPU)


@pytest.mark.parametrize(
    ("card", "capability", "chosen"),
    [("H200", (9, 0), "bf16"), ("T4", (7, 5), "fp16"), ("V100", (7, 0), "fp16"), ("P100", (6, 0), "fp32")],
)
def test_a_gpu_computes_in_what_it_has_circuits_for(card, capability, chosen, tmp_path, monkeypatch):
    def bf16(including_emulation: bool) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert settle("auto", tmp_path / "config.json", tmp_path / "memo.json", torch.device("cuda")) == chosen


@pytest.mark.parametrize("kind", ["bf16", "fp32"])
def test_a_step_is_timed(kind):
    assert 0 < step_seconds(kind) < 60
