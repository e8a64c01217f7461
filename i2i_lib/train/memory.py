"""The memory that a training step needs, counted on tensors without numbers: for a GPU that is not at hand."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@contextmanager
def fake_tensors() -> Iterator[None]:
    """A block whose tensors have a shape and hold no numbers: nothing is computed, and reading one is an error."""
    with (
        patch.object(nn.Module, "_apply", _apply),
        patch.object(FakeTensor, "__deepcopy__", _deepcopy, create=True),
        FakeTensorMode(),
    ):
        yield


def peak_memory(step: Callable[[], Any]) -> int:
    """Bytes that tensors take at most in two calls of `step`, in a block of `fake_tensors`.

    Counted are all that the steps read or make, until they are freed: in the second call also the optimisers' state,
    which the first has made. A GPU needs more, for its libraries' workspaces and what its allocator holds back.
    """
    with _Living() as living:
        step()
        step()
    return living.peak


class _Living(TorchDispatchMode):
    """Bytes of all tensors that operations have read or made and that still live, and the most that they were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.storages:
            return

        def freed(_: Any) -> None:
            del self.storages[key]
            self.now -= size

        self.storages[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module.to` and its like with new parameters: PyTorch swaps those of fake tensors, and often fails to."""
    for child in self.children():
        child._apply(fn)
    with torch.no_grad():
        for name, parameter in self._parameters.items():
            if parameter is not None:
                self._parameters[name] = nn.Parameter(fn(parameter), parameter.requires_grad)
        for name, buffer in self._buffers.items():
            self._buffers[name] = None if buffer is None else fn(buffer)
    return self


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    new = self.detach().clone()
    memo[id(self)] = nn.Parameter(new, self.requires_grad) if isinstance(self, nn.Parameter) else new
    return memo[id(self)]
