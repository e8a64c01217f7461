"""Time of one picture: each architecture in each way of running it, measured side by side.

```python
speed = measure_speed({"teacher": teacher, "gcka": student}, sizes=(64, 256))
for row in speed["rows"]:
    print(row["network"], row["size"], row["way"], row["ms"])
```
"""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from i2i_lib.checkpoint import save_generator
from i2i_lib.export.onnx import export_onnx, session
from i2i_lib.fuse import can_fuse, fuse
from i2i_lib.results import FUSED, PLAIN, RUNTIME

WARM_UP = 3  # passes that are not counted


def measure_speed(
    networks: Mapping[str, Any], sizes: Iterable[int | tuple[int, int]] = (64, 256), *, repeats: int = 15
) -> dict[str, Any]:
    """Time of one picture by every architecture among `networks`, name -> generator in eval mode; as plain JSON.

    `sizes` are sides of squares or (height, width). Networks of one configuration are one architecture, which is timed
    once. It runs as it is, fused, and, on a CPU, fused in ONNX Runtime, always in float32; SPADE only as it is.

    The result: `device`, "cpu" or the name of the GPU; `repeats`; and `rows` of `network`, the first of an
    architecture, `same`, the names of the others, `size` [height, width], `way`, one of `results.WAYS`, and `ms`, as
    `time_in_turn` takes them.
    """
    shapes = dict.fromkeys((size, size) if isinstance(size, int) else size for size in sizes)
    alike: dict[Any, list[str]] = {}
    for name, network in networks.items():
        alike.setdefault(network.config, []).append(name)
    device = next(next(iter(networks.values())).parameters()).device
    running = {names[0]: _ways(networks[names[0]], device) for names in alike.values()}
    rows = []
    for height, width in shapes:
        calls = {}
        for config, (name, *_) in alike.items():
            picture = _picture(config, height, width).to(device)
            calls |= {(config, way): partial(run, picture) for way, run in running[name].items()}
        for (config, way), ms in time_in_turn(calls, repeats=repeats, device=device).items():
            name, *same = alike[config]
            rows.append({"network": name, "same": same, "size": [height, width], "way": way, "ms": ms})
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"device": gpu or "cpu", "repeats": repeats, "rows": rows}


def time_in_turn(
    calls: Mapping[Any, Callable[[], Any]], *, repeats: int = 15, device: torch.device | str = "cpu"
) -> dict[Any, float]:
    """Median time of each call in milliseconds. They take turns, so that what else the machine does hits all alike.

    On a CPU, PyTorch gets one thread meanwhile, and the clock is that thread's own: it stands still while another
    process has the core. On a GPU, the clock is on the wall, and every call is waited for.
    """
    gpu = torch.device(device).type == "cuda"
    clock, wait = (time.perf_counter, torch.cuda.synchronize) if gpu else (time.thread_time, lambda: None)
    times: dict[Any, list[float]] = {name: [] for name in calls}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(WARM_UP + repeats):
                for name, call in calls.items():
                    wait()
                    started = clock()
                    call()
                    wait()
                    times[name].append(1000 * (clock() - started))
    finally:
        torch.set_num_threads(threads)
    return {name: median(found[WARM_UP:]) for name, found in times.items()}


def _ways(network: Any, device: torch.device) -> dict[str, Callable[[Tensor], Any]]:
    """Functions of a picture [1, C, H, W] by the way in which they run the network, which is left as it is."""
    ways: dict[str, Callable[[Tensor], Any]] = {PLAIN: _channels_last(copy.deepcopy(network))}
    if can_fuse(network):
        ways[FUSED] = _channels_last(fuse(network))
        if device.type == "cpu":
            with TemporaryDirectory() as folder:
                save_generator(network, Path(folder) / "network")
                file = session(export_onnx(Path(folder) / "network").path)
            ways[RUNTIME] = lambda picture: file.run(None, {"source": picture.numpy()})
    return ways


def _channels_last(network: nn.Module) -> Callable[[Tensor], Any]:
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return lambda picture: network(picture)


def _picture(config: Any, height: int, width: int) -> Tensor:
    """Noise in [-1, 1]: how long a network takes does not depend on what the picture shows."""
    channels = config.label_channels if hasattr(config, "label_channels") else config.in_channels
    drawn = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    return (2 * drawn - 1).to(memory_format=torch.channels_last)
