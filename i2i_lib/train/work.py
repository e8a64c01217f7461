"""The work of a training step, counted on tensors that hold no numbers: on any machine, for networks of any size."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from i2i_lib.data.tiles import Batch


@dataclass(frozen=True, slots=True)
class Work:
    """What one training step takes, forwards, backwards and updates."""

    macs: int  # products of convolutions and matrices, half of what PyTorch's counter of FLOPs says
    peak: int  # bytes of all tensors that live at once: weights, optimisers' states, activations, gradients


def count_step(make: Callable[[], tuple[Any, Batch]]) -> Work:
    """The work of a step of the trainer that `make` returns, with a batch for it.

    Everything in `make` is built of tensors with a shape and no memory; nothing in it may read their values. Kernels'
    own workspace and what an allocator wastes are not counted, so that a GPU needs more than `peak`.
    """
    with FakeTensorMode() as mode, _LiveBytes() as live:
        converter: Any = mode.fake_tensor_converter
        converter.meta_converter.tensor_memo = _ReadOnce()
        trainer, batch = make()
        trainer.step(batch)  # which creates the optimisers' states
        live.peak = live.now
        with FlopCounterMode(display=False) as counter:
            trainer.step(batch)
    return Work(counter.get_total_flops() // 2, live.peak)


class _ReadOnce(dict[Any, Tensor]):
    """Forgets what was read: a module cannot change the layout of parameters that something else refers to."""

    def get(self, key: Any, default: Any = None) -> Any:
        return self.pop(key, default)


class _LiveBytes(TorchDispatchMode):
    """Follows how many bytes of storage live, `now` and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return made

    def _see(self, storage: Any) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size
