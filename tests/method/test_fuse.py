"""A fused network computes what the generator does, in fewer kernels."""

import copy
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import any_config, network, same, trained

from i2i_lib.config import ResnetConfig, cat_spade_teacher, cat_teacher
from i2i_lib.fuse import fuse
from i2i_lib.generators import InceptionGenerator

RESNETS = [
    ResnetConfig(5, 3, "batch", upsample="resize"),
    ResnetConfig(5, 3, "instance", upsample="transpose"),
    ResnetConfig(5, 3, "batch", upsample="transpose", separable=True),
    ResnetConfig(5, 3, "instance", upsample="resize", separable=True),
]


@pytest.mark.parametrize("seed", range(24 + len(RESNETS)))
def test_it_computes_the_same(seed):
    """In float64, where nothing but the algebra can differ; with two pictures, which instance norm keeps apart."""
    config = any_config(seed) if seed < 24 else RESNETS[seed - 24]
    net, images = trained(config, seed).double(), torch.rand(2, 3, 24, 32, dtype=torch.float64) * 2 - 1
    before = copy.deepcopy(net)
    with torch.no_grad():
        fused = fuse(net)
        torch.testing.assert_close(fused(images), net(images), rtol=0, atol=1e-11)
        memory = images.to(memory_format=torch.channels_last)
        torch.testing.assert_close(fused.to(memory_format=torch.channels_last)(memory), net(images), rtol=0, atol=1e-11)
        torch.testing.assert_close(fused.features(images), net.features(images), rtol=0, atol=1e-11)
    assert fused.config == net.config and not fused.training
    assert same(net, before)


class Calls(TorchDispatchMode):
    """Counts what is computed or copied; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_fewer_kernels(norm):
    """A block of six branches: 15 convolutions and 6 borders become at most 7 and 4."""
    net = trained(cat_teacher(24, 3, norm), 0)
    counted = []
    for each in (net, fuse(net)):
        with torch.no_grad(), Calls() as calls:
            each(torch.zeros(1, 3, 32, 32))
        counted.append(calls.counts)
    before, after = counted
    ends = 6  # convolutions of stem, up-sampling and head
    assert before["convolution"] == 3 * 15 + ends and after["convolution"] <= 3 * 7 + ends
    assert before["reflection_pad2d"] == 3 * 6 + 2 and after["reflection_pad2d"] <= 3 * 4 + 2
    assert not after["native_batch_norm"] and not after["_native_batch_norm_legit_no_training"]
    assert after.total() < 0.6 * before.total()


def test_what_cannot_be_fused_is_refused():
    net = InceptionGenerator(any_config(0))
    with pytest.raises(ValueError, match=r"training mode.*call \.eval\(\) first"):
        fuse(net)
    with pytest.raises(ValueError, match="only an inception or ResNet generator can be fused, got InceptionSpade"):
        fuse(network(cat_spade_teacher(2, 4, 2)).eval())
    with pytest.raises(ValueError, match="multiples of 4, got 30 x 32"):
        fuse(net.eval())(torch.zeros(1, 3, 30, 32))
