"""Numbers and names as a reader takes them in: few digits, a unit with a meaning."""

from i2i_lib.config import GeneratorConfig, SpadeConfig

LEVELS = 127.5  # grey levels of 255 in one unit of L1, whose scale runs from -1 to 1
LEAST = 0.0005  # difference in L1 or SSIM, below which nothing can be seen
FEWER = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 8: "an eighth", 10: "a tenth"}


def tap_names(config: GeneratorConfig | SpadeConfig) -> list[str]:
    """The layers that distillation taps in a generator, near the input first: "after block 2"."""
    if isinstance(config, SpadeConfig):
        names = ["head_0", "G_middle_1", "up_1"]  # as SPADE's blocks are called
    else:
        names = ["stem", *(f"block {i}" for i in config.taps)]
    return [f"after {name}" for name in names]


def grey_levels(distance: float) -> str:
    """An L1 distance as grey levels of 255: "12.3"."""
    return f"{LEVELS * distance:.1f}"


def share_of(times: float) -> str:
    """What is left where there are so many times fewer: "an eighth" or "1/22"."""
    nearest = round(times)
    return FEWER[nearest] if nearest in FEWER and abs(times / nearest - 1) < 0.03 else f"1/{times:.2g}"


def in_percent(ratio: float) -> str:
    """How much a ratio is above or below 1, in words: "16 % higher"."""
    change = 100 * (ratio - 1)
    if abs(change) < 0.5:
        return "the same within half a percent"
    return f"{abs(change):.0f} % {'higher' if change > 0 else 'lower'}"


def span_of(seconds: float) -> str:
    """A time with two digits that say something: "45 s", "6 min", "1.2 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
