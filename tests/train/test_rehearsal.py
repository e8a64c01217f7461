"""Every training on a GPU that is not there: all on one device, nothing read or moved, and on from a checkpoint."""

from typing import Any, get_args

import pytest
import torch
import toys
from fake_gpu import GPU, NoTransfers, fake_gpu
from toys import FAMILIES

from i2i_lib.train.adversarial import Precision, TrainConfig


def on_cpu(state: Any) -> Any:
    """A state as a checkpoint brings it back."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {name: on_cpu(value) for name, value in state.items()}
    return [on_cpu(value) for value in state] if isinstance(state, list) else state


CASES = [
    (family, precision)
    for family in FAMILIES
    for precision in get_args(Precision)
    # tf32 is a switch of the convolutions alone, and bf16 is fp16 without a scaled loss.
    if precision in ("fp32", "fp16") or family == "pix2pix"
]


@pytest.mark.parametrize("make", [toys.trainer, toys.distiller])
@pytest.mark.parametrize(("family", "precision"), CASES)
def test_a_step_is_taken_on_the_gpu_alone_and_another_after_a_resume(family, make, precision, monkeypatch):
    monkeypatch.setattr(toys, "init_weights", lambda *args, **options: None)  # there are no numbers to draw
    config = TrainConfig(steps=4, average=0.5, distill=1.0, precision=precision)
    with fake_gpu():
        batch = next(toys.batches(family, GPU)(0))
        with GPU:
            trainer = make(family, config)
        with NoTransfers():
            trainer.step(batch)
        state = trainer.state_dict()
        trainer.load_state_dict(on_cpu(state))
        losses = trainer.step(batch)
        again = trainer.state_dict()  # CycleGAN's pools hold fakes of before and after
    assert trainer.count == 2
    assert {loss.device for loss in losses.values()} == {GPU}
    assert again.keys() == state.keys()
