"""Passes over a batch in parts, which take less memory and more time."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


class InParts(nn.Module):
    """A network that goes over a batch in parts of at most `samples`, or in one part with 0, and keeps their outputs.

    All else that gradients need is computed again in the backward pass, part by part (activation checkpointing), which
    is one pass more. Losses are those of the whole batch, and gradients add up to the undivided pass's, except for
    rounding, if no norm looks at several samples: batch norm takes its statistics of each part, and its running ones
    follow every part. So does spectral norm's estimate. One part gives the undivided pass's numbers with any norm.

    Passes without gradients are undivided.
    """

    def __init__(self, network: nn.Module, samples: int = 0) -> None:
        super().__init__()
        self.network, self.samples = network, samples

    def forward(self, x: Tensor, **options: Any) -> Any:
        """What the network returns for `x` [N, C, H, W]: tensors of N samples each, or tuples or lists of them."""
        if not torch.is_grad_enabled():
            return self.network(x, **options)
        return _joined([self._part(part, options) for part in x.split(self.samples or len(x))])

    def _part(self, x: Tensor, options: dict[str, Any]) -> Any:
        before = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        passes = 0

        def run(x: Tensor) -> Any:
            nonlocal passes
            passes += 1
            if passes == 1:
                return self.network(x, **options)
            # Again from the buffers of then, and without a mark on those of now.
            return functional_call(self.network, {name: b.clone() for name, b in before.items()}, (x,), options)

        return checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)  # no layer draws random numbers


def _joined(parts: list[Any]) -> Any:
    """The outputs of the parts of a batch as those of the batch."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(parts)
    return type(first)(_joined(list(same)) for same in zip(*parts, strict=True))
