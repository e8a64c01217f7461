"""Vector drawings as pictures."""

import io

import numpy as np
import resvg_py
import torch
from PIL import Image
from torch import Tensor

RENDERER = f"resvg {resvg_py.__resvg_version__}"


def render_svg(svg: str, size: int, mode: str = "RGB", background: str | None = "white") -> Tensor:
    """Render a drawing as uint8 [C, size, size], its edges smoothed, in the channels of a Pillow mode.

    With `background=None` and mode "RGBA", the last channel holds how much of a pixel the drawing covers.
    Text has no font to be set in and is left out, so that a picture is the same on every machine.
    """
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background=background, skip_system_fonts=True)
    with Image.open(io.BytesIO(png)) as image:
        return torch.from_numpy(np.array(image.convert(mode))).reshape(size, size, -1).permute(2, 0, 1)
