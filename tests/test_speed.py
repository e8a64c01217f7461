"""Measured costs: memory against what is known of a small network, times only for their order."""

import pytest
from torch import nn

from i2i_lib.metrics.cost import inference_cost


def test_peak_memory_is_that_of_the_largest_live_tensors():
    """16 channels of 128 x 128 floats are 1 MiB: two such maps live together, before and after the ReLU."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    one, four = (inference_cost(network.train(), 128, batch_size=n, repeats=20) for n in (1, 4))
    assert one.peak_mib == pytest.approx(2, rel=0.05)
    assert four.peak_mib == pytest.approx(8, rel=0.05)
    wide = inference_cost(network, (128, 256), repeats=20)
    assert wide.peak_mib == pytest.approx(4, rel=0.05)
    assert 0 < one.median_ms <= one.p95_ms
    assert network.training, "the network is left in the mode that it was in"


def test_too_few_repeats_have_no_percentile():
    with pytest.raises(ValueError, match="at least 20 repeats, got 5"):
        inference_cost(nn.Conv2d(3, 3, 1), 32, repeats=5)
