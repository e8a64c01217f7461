"""A GPU that is not there: tensors have a shape and a device and hold no numbers, so that nothing is computed.

What PyTorch itself refuses without a driver is stood in for: the backward pass (gradients are zeros), and questions
about the GPU's abilities and its stream.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from i2i_lib.train.memory import fake_tensors

GPU = torch.device("cuda", 0)


@contextmanager
def fake_gpu() -> Iterator[None]:
    """A block in which `GPU` is there and every tensor is fake; reading a value raises an error."""
    with pytest.MonkeyPatch.context() as patch, fake_tensors():
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_available", lambda: False)  # no second thread, where tensors would be real
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        patch.setattr(Tensor, "backward", _zero_gradients)
        # Read for a checkpoint, as all of it is.
        patch.setattr(torch.amp.GradScaler, "get_scale", lambda self: 1024.0)
        patch.setattr(torch.amp.GradScaler, "_get_growth_tracker", lambda self: 0)
        yield


def _zero_gradients(self: Tensor) -> None:
    """Gradients, all 0, for every parameter that this loss depends on."""
    nodes, seen = [self.grad_fn], set()
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [before for before, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)


class NoTransfers(TorchDispatchMode):
    """A block in which nothing goes from one device to another: either side would have to wait."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            target, source = (result, args[0]) if func.overloadpacket is torch.ops.aten._to_copy else args[:2]
            assert target.device == source.device, f"{source.device} -> {target.device}"
        return result
