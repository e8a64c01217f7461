"""Explain why training stopped: the layer whose numbers went bad, the setting to lower."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from i2i_lib.data.tiles import Batch

_TOO_LITTLE = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def lacks_memory(error: Exception) -> bool:
    """Whether memory ran out, by the type of the error or by PyTorch's message.

    Not every message with "memory" in it counts: "an illegal memory access" is a fault of the program.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _TOO_LITTLE)


@contextmanager
def explain_out_of_memory(what: str) -> Iterator[None]:
    """Raise MemoryError with the way out if the block runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MemoryError(
            f"{what}: out of memory, set recompute or, without batch norm, micro_batch, which cost time alone; or lower"
            f" batch_size, image_size or base ({reason})"
        ) from error


def not_finite(state: Any, name: str = "") -> list[str]:
    """The name of the first tensor in nested containers that holds NaN or infinity, alone in a list; or nothing."""
    if isinstance(state, Tensor):
        return [] if state.isfinite().all() else [name]
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(state, dict):
        inside = state.items()
    elif isinstance(state, list | tuple):
        inside = enumerate(state)
    for key, value in inside:
        if found := not_finite(value, f"{name}.{key}".lstrip(".")):
            return found
    return []


def first_bad(
    step: Callable[[Batch], dict[str, Tensor]], batches: Iterator[Batch], trainer: Any, steps: range
) -> str | None:
    """Take `steps` again from the trainer's state; return the number that was first NaN or infinite, and its step.

    Looks at every layer's output, in the order of the pass, then at the losses, then at the gradients, from the last
    layer backwards: too slow to do while training. None if nothing is found: on a GPU, a step taken again need not
    give the same numbers.
    """
    names: dict[nn.Module, str] = {}
    for name, module in _modules(trainer):
        names.setdefault(module, name)  # a trainer may hold a network by several names
    found: list[str] = []
    # With a scaled loss, gradients may be infinite for a step, which is then left out.
    scaled = getattr(getattr(trainer, "config", None), "precision", None) == "fp16"

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        if not found and not_finite(output):
            found.append(f"the output of {names.get(module, type(module).__name__)}")

    with register_module_forward_hook(watch):
        for index, batch in zip(steps, batches, strict=False):
            found += [f"the loss {name}" for name in not_finite(step(batch))]
            for module, name in reversed(names.items()) if not (found or scaled) else ():
                gradients = {p: g.grad for p, g in module.named_parameters(recurse=False) if g.grad is not None}
                found += [f"the gradient of {name}.{parameter}" for parameter in not_finite(gradients)]
            if found:
                return f"{found[0]} at step {index}"
    return None


def _modules(trainer: Any, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every layer that a trainer holds, by its path, those of a trainer inside it too."""
    for name, value in vars(trainer).items():
        if isinstance(value, nn.Module):
            yield from ((f"{prefix}{name}.{inner}".rstrip("."), module) for inner, module in value.named_modules())
        elif hasattr(value, "state_dict"):
            yield from _modules(value, f"{prefix}{name}.")
