"""The running average of a network's weights while it trains."""

import copy
from typing import Any

import torch


class RunningAverage:
    """A copy, `module`, whose weights follow a network's; its buffers are those of the latest update.

    PyTorch's `AveragedModel` counts its updates in a tensor and reads it at each, for which a GPU would wait.
    """

    def __init__(self, network: Any) -> None:
        self.module = copy.deepcopy(network)

    @torch.no_grad()
    def update(self, network: Any, decay: float) -> None:
        """Keep the share `decay` of the average, and take the rest from the network's weights."""
        torch._foreach_lerp_([*self.module.parameters()], [*network.parameters()], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for averaged, latest in zip(self.module.buffers(), network.buffers(), strict=True):
            averaged.copy_(latest)

    def state_dict(self) -> dict[str, Any]:
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state)
