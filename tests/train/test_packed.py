"""A packed generator trains as the generator does."""

import copy

import pytest
import torch
from toys import any_config, network, trained

from i2i_lib.config import ResnetConfig, cat_spade_teacher
from i2i_lib.train.packed import packed


@pytest.mark.parametrize("config", [*map(any_config, range(12)), ResnetConfig(5, 3, "batch", upsample="resize")])
def test_images_features_gradients_and_running_statistics_are_the_same(config):
    """In float64, where nothing but the algebra can differ."""
    plain, images = trained(config).double().train(), torch.rand(2, 3, 24, 32, dtype=torch.float64) * 2 - 1
    other = copy.deepcopy(plain)
    view = packed(other)
    for net, passes in ((plain, plain), (other, view)):
        made = passes(images, features=True)
        torch.stack([(tensor**2).sum() for tensor in (made[0], *made[1])]).sum().backward()
        net.made = made
    torch.testing.assert_close(other.made, plain.made, rtol=0, atol=1e-11)
    torch.testing.assert_close(dict(other.named_buffers()), dict(plain.named_buffers()), rtol=1e-12, atol=1e-12)
    for (name, a), b in zip(other.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-8, msg=name)
    assert {id(p) for p in view.parameters()} == {id(p) for p in other.parameters()}


def test_other_families_are_left_as_they_are():
    spade = network(cat_spade_teacher(2, 4, 2))
    assert packed(spade) is spade
