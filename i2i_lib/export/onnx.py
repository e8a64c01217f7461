"""Export a generator as one ONNX file: `i2i export STUDENT --precision int8`.

The file holds the fused network, written operator by operator: every border is a Pad of its own or a symmetric one, and
nothing in it depends on the picture's size. Pictures of any size are padded and cropped in it as `translate` does. It
appears under its name only after ONNX Runtime has reproduced with it PyTorch's pictures.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from i2i_lib.artifacts import artifact_file
from i2i_lib.checkpoint import load_generator, load_info
from i2i_lib.config import check_image_size
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import encode, evenly
from i2i_lib.files import atomic_write
from i2i_lib.fuse import FusedGenerator, can_fuse, fuse
from i2i_lib.generators import InceptionGenerator, ResnetGenerator
from i2i_lib.macs import generator_macs
from i2i_lib.translate import LEAST, at_any_size

Precision = Literal["fp32", "fp16", "int8"]
OPSET, IR_VERSION = 17, 8  # old enough for the runtimes of phones and browsers
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2}  # largest difference from PyTorch, of values in [-1, 1]
LEAST_PSNR = 25.0  # against PyTorch, in dB
CALIBRATION_TILES = 64


@dataclass(frozen=True, slots=True)
class Exported:
    """A published file and how far it is from PyTorch's pictures, on the scale of -1 to 1."""

    path: Path
    precision: Precision
    size: int  # bytes
    largest: float  # difference of any value
    psnr: float  # in dB, over all values


def export_onnx(
    student: Path | str,
    out: Path | str | None = None,
    *,
    precision: Precision = "fp32",
    size: int | None = None,
    calibrate: Path | str | None = None,
) -> Exported:
    """Write the generator saved at `student` (no suffix) as `out`, by default `<student>-<precision>.onnx`.

    It is an inception or a ResNet generator. The file maps `source` [N, C, H, W] to `image` [N, 3, H, W] of any size,
    float32 in [-1, 1] whatever the precision. A `size`, one that the generator takes as it is, fixes N = 1 and H = W
    and leaves out the padding where none is needed. "int8" quantises convolutions, except the first and the last, per
    channel, by their inputs on training tiles of the task saved at `calibrate`, by default `data` beside the generator.
    It is compared with PyTorch on these tiles where they are read, for "int8" or a given `calibrate`, else on noise.

    Raises ValueError where the generator is of another kind or the file does not compute what PyTorch does, and
    FileNotFoundError without a task to calibrate on. Nothing is then written.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision is one of {', '.join(get_args(Precision))}, got {precision!r}")
    student = Path(student)
    generator, info = load_generator(student), load_info(student)
    if not can_fuse(generator):
        raise ValueError(
            f"only inception and ResNet generators are exported, and {student} is a {type(generator).__name__}"
        )
    side = 256 if size is None else check_image_size(size, generator.config)[0]
    if calibrate or precision == "int8":
        images = _training_tiles(Path(calibrate) if calibrate else student.with_name("data"))
    else:  # what lies beside the student may lead to pictures that were moved since
        noise = torch.rand(8, generator.config.in_channels, 64, 64, generator=torch.Generator().manual_seed(0))
        images = 2 * noise - 1
    described = {
        "config": json.dumps(asdict(generator.config)),
        "weights_sha256": info["sha256"],
        "value_range": "[-1, 1]",
        "precision": precision,
        "sizes": "any" if size is None else f"{size} x {size}",
        "macs_exact": str(generator_macs(generator.config, side, "exact")),
        "macs_paper": str(generator_macs(generator.config, side)),
        "macs_image_size": str(side),
    }
    model = _model(fuse(generator), half=precision == "fp16", any_size=size is None or size < LEAST)
    if precision == "int8":
        model = _quantised(model, images)
    if size is not None:
        for value in (*model.graph.input, *model.graph.output):
            batch, _, height, width = value.type.tensor_type.shape.dim
            batch.dim_value, height.dim_value, width.dim_value = 1, size, size
    helper.set_model_props(model, described)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()

    if size is not None:
        images = torch.nn.functional.interpolate(images, size=(size, size))
    largest, psnr = _difference(data, generator, images[:8])
    if largest > TOLERANCE[precision] or psnr < LEAST_PSNR:
        raise ValueError(
            f"the {precision} network does not agree with PyTorch (largest difference {largest:.2g}, PSNR"
            f" {psnr:.1f} dB; expected at most {TOLERANCE[precision]:g} and at least {LEAST_PSNR:g} dB):"
            " nothing was written. Another --precision may do"
        )
    path = Path(out) if out else student.with_name(f"{student.name}-{precision}.onnx")
    atomic_write(path, data)
    return Exported(path, precision, len(data), largest, psnr)


def onnx_file(generator: InceptionGenerator) -> bytes:
    """Content of a generator's file for pictures of any size, in float32 and unchecked: to time, not to publish."""
    return _model(fuse(generator), half=False, any_size=True).SerializeToString()


def milliseconds(model: Path | str | bytes, size: int) -> float:
    """Time of one colour picture of `size` pixels in ONNX Runtime on one thread of the CPU: the fastest of many runs.

    The clock is the thread's own: it stands still while another process has the core. The fastest, since what others
    leave in the caches can only add to it. After two seconds, five runs do.
    """
    running, times = session(model), []
    source = np.zeros((1, 3, size, size), np.float32)
    while len(times) < 30 and (len(times) < 5 or sum(times) < 2000):
        started = time.thread_time()
        running.run(None, {"source": source})
        times.append(1000 * (time.thread_time() - started))
    return min(times)


def session(model: Path | str | bytes) -> onnxruntime.InferenceSession:
    """An exported file or its content, ready to run on one thread of the CPU: `.run(None, {"source": array})[0]`."""
    data = model if isinstance(model, bytes) else Path(model).read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _difference(data: bytes, generator: InceptionGenerator | ResnetGenerator, images: Tensor) -> tuple[float, float]:
    """The largest difference between file and generator, and the PSNR in dB, over `images` one by one."""
    running, gaps = session(data), []
    with torch.no_grad():
        for image in images.split(1):
            made = torch.from_numpy(running.run(None, {"source": image.numpy()})[0])
            gaps.append(made - at_any_size(generator, image))
    return psnr_between(torch.cat(gaps))


def psnr_between(gap: Tensor) -> tuple[float, float]:
    """The largest difference between pictures in [-1, 1], and the PSNR in dB; infinity and 0 if one is not finite."""
    if not gap.isfinite().all():
        return float("inf"), 0.0
    square = gap.double().square().mean().clamp(min=1e-20)
    return gap.abs().max().item(), (10 * torch.log10(4 / square)).item()


def _training_tiles(task: Path) -> Tensor:
    """Encoded sources [N, C, H, W] spread over the training tiles, of the size that training crops from them."""
    if not artifact_file(task, "json").exists():
        raise FileNotFoundError(
            f"{task}.json does not exist: int8 is calibrated on training tiles, so name a saved task (a path without"
            " suffix, as `save_task` writes it) with --data (in Python: calibrate)"
        )
    saved = load_saved_task(task)
    tiles, (height, width) = saved.train, saved.test.shape
    chosen = tiles.source[evenly(len(tiles), CALIBRATION_TILES)]
    return encode(chosen[..., :height, :width], tiles.classes)


class _Graph:
    """Nodes and constants in the order in which they are added."""

    def __init__(self, half: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.half = half

    def constant(self, value: Tensor | list[int] | int) -> str:
        if isinstance(value, Tensor):
            array = value.detach().cpu().numpy().astype(np.float16 if self.half else np.float32)
        else:
            array = np.array(value, dtype=np.int64)
        name = f"constant{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def add(self, kind: str, *inputs: str, name: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; the name of its output, or of all if there are several."""
        name = name or f"{kind}{len(self.nodes)}"
        made = [f"{name}:{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, **attributes))
        return made if outputs > 1 else made[0]

    def pad(self, x: str, border: int, mode: str) -> str:
        ends = [0, 0, border, border]
        return self.add("Pad", x, self.constant(ends + ends), mode=mode) if border else x

    def split(self, x: str, widths: list[int]) -> list[str]:
        return self.add("Split", x, self.constant(widths), outputs=len(widths), axis=1) if len(widths) > 1 else [x]

    def fit(self, x: str) -> tuple[str, str]:
        """`x` padded as `translate.at_any_size` does, and the name of its height and width before.

        Pad cannot choose between reflecting and repeating; Gather takes rows and columns by numbers computed here.
        """
        shape = self.add("Shape", x, start=2)  # [height, width]
        four, least = self.constant([4]), self.constant([LEAST])
        rounded = self.add("Mul", self.add("Div", self.add("Add", shape, self.constant([3])), four), four)
        padded = self.add("Max", rounded, least)
        # Reflection needs a picture that is larger than its border on both sides.
        fits = self.add("Cast", self.add("Less", padded, self.add("Add", shape, shape)), to=TensorProto.INT64)
        reflects = self.add("Cast", self.add("ReduceMin", fits, axes=[0]), to=TensorProto.BOOL)
        zero, one = self.constant(0), self.constant(1)
        for axis in (0, 1):
            at = self.constant(axis)
            side, end = self.add("Gather", shape, at), self.add("Gather", padded, at)
            last = self.add("Sub", side, one)
            position = self.add("Range", zero, end, one)
            reflected = self.add("Sub", self.add("Add", last, last), position)
            beyond = self.add("Where", reflects, reflected, last)
            inside = self.add("Less", position, side)
            x = self.add("Gather", x, self.add("Where", inside, position, beyond), axis=2 + axis)
        return x, shape

    def norm(self, norm: Any, x: str) -> str:
        return self.add(
            "InstanceNormalization", x, self.constant(norm.weight), self.constant(norm.bias), epsilon=norm.eps
        )

    def layer(self, layer: Any, x: str, name: str) -> str:
        conv = layer.conv
        x = self.pad(x, layer.border, "edge" if layer.mode == "replicate" else layer.mode)
        inputs = [self.constant(value) for value in (conv.weight, conv.bias) if value is not None]
        attributes = {"strides": conv.stride, "pads": conv.padding * 2, "group": conv.groups}
        attributes["kernel_shape"] = conv.kernel_size
        if conv.transposed and any(conv.output_padding):
            attributes["output_padding"] = conv.output_padding
        x = self.add("ConvTranspose" if conv.transposed else "Conv", x, *inputs, name=name, **attributes)
        x = x if layer.norm is None else self.norm(layer.norm, x)
        return self.add("Relu", x) if layer.relu else x

    def block(self, block: Any, x: str, name: str) -> str:
        """As `forward` of a fused block, inception or ResNet, or one that has lost all branches."""
        if isinstance(block, nn.Identity):
            return x
        if hasattr(block, "body"):
            body = x
            for i, layer in enumerate(block.body):
                body = self.layer(layer, body, f"{name}.body.{i}")
            return self.add("Add", body, x)
        padded, hidden = self.pad(x, block.border, "reflect"), []
        for i, (layer, widths, cut) in enumerate(zip(block.expand, block.widths, block.cuts, strict=True)):
            if cut == block.border:
                seen = x
            elif cut:
                ends = [self.constant(values) for values in ([cut, cut], [-cut, -cut], [2, 3])]
                seen = self.add("Slice", padded, *ends)
            else:
                seen = padded
            hidden += self.split(self.layer(layer, seen, f"{name}.expand.{i}"), widths)
        if block.spatial is not None:
            if block.past:
                past, points = self.split(hidden[0], [block.past, block.spatial.conv.in_channels])
                made = self.layer(block.spatial, points, f"{name}.spatial")
                hidden[0] = self.add("Concat", past, made, axis=1)
            else:
                hidden[0] = self.layer(block.spatial, hidden[0], f"{name}.spatial")
        body = self.layer(block.project[0], hidden[0], f"{name}.project.0")
        for i, part in enumerate(hidden[1:], start=1):
            body = self.add("Add", body, self.layer(block.project[i], part, f"{name}.project.{i}"))
        if block.norm is not None:
            body = self.norm(block.norm, body)
        return self.add("Add", body, x)


def _model(network: FusedGenerator, *, half: bool, any_size: bool) -> onnx.ModelProto:
    """The network for any batch; with `half`, float16 between a float32 input and output.

    Without `any_size` the sides are those that `check_image_size` takes.
    """
    graph, config = _Graph(half), network.config
    x, shape = graph.fit("source") if any_size else ("source", "")
    if half:
        x = graph.add("Cast", x, to=TensorProto.FLOAT16)
    for stage in ("stem", "blocks", "up"):
        write = graph.block if stage == "blocks" else graph.layer
        for i, part in enumerate(getattr(network, stage)):
            x = write(part, x, f"{stage}.{i}")
    x = graph.add("DepthToSpace", graph.layer(network.head, x, "head"), blocksize=2, mode="CRD")
    x = graph.add("Tanh", x)
    if half:
        x = graph.add("Cast", x, to=TensorProto.FLOAT)
    if any_size:
        graph.add("Slice", x, graph.constant([0, 0]), shape, graph.constant([2, 3]))
    graph.nodes[-1].output[0] = "image"
    shapes = {"source": config.in_channels, "image": config.out_channels}
    source, image = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, "height", "width"])
        for name, channels in shapes.items()
    )
    made = helper.make_graph(graph.nodes, "student", [source], [image], [*graph.constants.values()])
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION, producer_name="i2i_lib")


def _quantised(model: onnx.ModelProto, tiles: Tensor) -> onnx.ModelProto:
    # Imported late: the quantiser is large, and only this needs it.
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Mapping[str, np.ndarray]] = iter([{"source": t.numpy()} for t in tiles.split(1)])

        def get_next(self) -> Any:
            return next(self.left, None)

    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it recommends an optimiser that changes nothing here
    try:
        with TemporaryDirectory() as folder:
            made = os.path.join(folder, "int8.onnx")
            quantize_static(
                model,
                made,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=["stem.0", "head"],  # 3 channels in, 3 out: little to gain, and visible errors
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
            return onnx.load(made)
    finally:
        logging.disable(quiet)
