"""Exported files compute what PyTorch does, wherever they are run."""

import json
import re
import shutil

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from toys import tiles, trained

from i2i_lib.checkpoint import load_info, save_generator
from i2i_lib.cli.__main__ import main
from i2i_lib.config import BlockWidths, GeneratorConfig, ResnetConfig
from i2i_lib.data.store import save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import Task, encode
from i2i_lib.export import onnx as export
from i2i_lib.export.onnx import export_onnx, session
from i2i_lib.metrics.pairs import quantise
from i2i_lib.translate import at_any_size, translate

BLOCKS = (BlockWidths((3, 0, 2), (4, 2, 0)), BlockWidths((0, 0, 0), (0, 0, 0)), BlockWidths((0, 5, 14), (0, 0, 1)))
CONFIGS = {
    "batch": GeneratorConfig((6, 8, 10), BLOCKS, (8, 6), "batch", "resize"),
    "instance": GeneratorConfig((6, 8, 10), BLOCKS, (8, 6), "instance", "transpose"),
    "resnet": ResnetConfig(6, 3, "batch", upsample="resize"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two students and a task beside them."""
    place = tmp_path_factory.mktemp("export")
    for name, config in CONFIGS.items():
        save_generator(trained(config, 1), place / name)
    save_task(Task("smooth", "pix2pix", tiles(size=32), tiles(size=32, seed=1), {}), place / "data")
    return place


def images(height: int, width: int, count: int = 1) -> torch.Tensor:
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 2 - 1


@pytest.mark.parametrize("norm", CONFIGS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_file_agrees_with_pytorch_at_any_size(folder, norm, precision):
    """The tolerances of float32 and float16 bound every value; int8 is held to 30 dB over a picture."""
    done = export_onnx(folder / norm, folder / f"{norm}-{precision}-any.onnx", precision=precision)
    net, running = trained(CONFIGS[norm], 1), session(done.path)
    for source in (images(32, 32, 3), images(24, 40)):
        with torch.no_grad():
            gap = torch.from_numpy(running.run(None, {"source": source.numpy()})[0]) - net(source)
        if precision == "int8":
            assert 10 * torch.log10(4 / gap.square().mean()) > 30
            assert gap.abs().max() > 1e-4, "it is another network"
        else:
            assert gap.abs().max() < {"fp32": 1e-4, "fp16": 2e-2}[precision]
    assert done.size == done.path.stat().st_size


@pytest.mark.parametrize(
    ("height", "width"), [(250, 250), (33, 47), (65, 64), (8, 8), (9, 40), (40, 7), (1, 20), (16, 17)]
)
def test_pictures_of_any_size_become_what_translate_makes_of_them(any_size, height, width):
    """The file pads by reflection and crops, and repeats the border of pictures that are too small to be reflected."""
    net, running = any_size
    source = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    made = torch.from_numpy(running.run(None, {"source": encode(source).numpy()})[0])
    with torch.no_grad():
        torch.testing.assert_close(made, at_any_size(net, encode(source)), rtol=0, atol=1e-3)
    apart = (quantise(made)[0].int() - translate(net, source[0]).int()).abs()
    assert apart.shape == (3, height, width) and apart.max() <= 1


@pytest.fixture(scope="module", params=CONFIGS)
def any_size(folder, request):
    file = export_onnx(folder / request.param, folder / f"{request.param}-sizes.onnx").path
    return trained(CONFIGS[request.param], 1), session(file)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_training_tiles_may_have_any_side(folder, tmp_path, precision):
    """A folder's are 286/256 of the size that training crops from them: 143 pixels at a size of 128."""
    save_task(Task("smooth", "pix2pix", tiles(size=35), tiles(size=32), {}), tmp_path / "data")
    out = tmp_path / "student.onnx"
    export_onnx(folder / "instance", out, precision=precision, calibrate=tmp_path / "data")
    assert out.exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_only_int8_reads_the_pictures_that_a_student_learnt_from(tmp_path, precision):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (64, 32), "teal").save(tmp_path / "photos" / "train" / f"{name}.png")
    save_task(load_task("folder", image_size=16, path=tmp_path / "photos"), tmp_path / "data")
    save_generator(trained(CONFIGS["batch"], 1), tmp_path / "student")
    shutil.rmtree(tmp_path / "photos")
    assert export_onnx(tmp_path / "student", precision=precision).path.exists()
    with pytest.raises(FileNotFoundError, match="listed and is gone: put it back"):
        export_onnx(tmp_path / "student", precision="int8")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_take_any_size_too(folder, precision):
    file = export_onnx(folder / "batch", folder / f"{precision}-sizes.onnx", precision=precision).path
    net, running = trained(CONFIGS["batch"], 1), session(file)
    for source in (images(33, 47), images(10, 30)):
        made = torch.from_numpy(running.run(None, {"source": source.numpy()})[0])
        with torch.no_grad():
            gap = (made - at_any_size(net, source)).square().mean()
        assert made.shape == source.shape and 10 * torch.log10(4 / gap) > 30


def test_a_fixed_size_below_the_least_is_padded_as_translate_does(folder):
    running = session(export_onnx(folder / "batch", folder / "small.onnx", size=12).path)
    source = images(12, 12)
    made = torch.from_numpy(running.run(None, {"source": source.numpy()})[0])
    with torch.no_grad():
        torch.testing.assert_close(made, at_any_size(trained(CONFIGS["batch"], 1), source), rtol=0, atol=1e-4)


def test_a_fixed_size_is_in_the_file(folder):
    done = export_onnx(folder / "batch", folder / "fixed.onnx", size=32)
    running = session(done.path)
    assert running.get_inputs()[0].shape == [1, 3, 32, 32] and running.get_outputs()[0].shape == [1, 3, 32, 32]
    source = images(32, 32)
    with torch.no_grad():
        gap = torch.from_numpy(running.run(None, {"source": source.numpy()})[0]) - trained(CONFIGS["batch"], 1)(source)
    assert gap.abs().max() < 1e-4
    with pytest.raises(Exception, match="invalid dimensions"):
        running.run(None, {"source": images(24, 24).numpy()})


@pytest.mark.parametrize("norm", CONFIGS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_borders_are_explicit_and_symmetric(folder, norm, precision):
    model = onnx.load(export_onnx(folder / norm, folder / "borders.onnx", precision=precision).path)
    kinds = {node.op_type for node in model.graph.node}
    assert "Pad" in kinds and ("InstanceNormalization" in kinds) == (norm == "instance")
    assert "BatchNormalization" not in kinds
    for node in model.graph.node:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert "auto_pad" not in values
        if node.op_type in ("Conv", "ConvTranspose"):
            assert len(values["pads"]) == 4 and values["pads"][:2] == values["pads"][2:]


def test_int8_quantises_the_inner_convolutions_only(folder):
    graph = onnx.load(export_onnx(folder / "batch", folder / "int8.onnx", precision="int8").path).graph
    maker = {output: node.op_type for node in graph.node for output in node.output}
    quantised = {
        node.name: maker.get(node.input[1]) == "DequantizeLinear" for node in graph.node if "Conv" in node.op_type
    }
    inner = {name for name in quantised if name.startswith("blocks") or name in ("stem.1", "stem.2")}
    assert {name for name, yes in quantised.items() if yes} == inner
    scales = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer if x.name.endswith("_scale")}
    assert max(scale.size for scale in scales.values()) > 1, "per channel"


def test_the_file_says_what_it_is(folder):
    model = onnx.load(export_onnx(folder / "instance", folder / "meta.onnx", size=64).path)
    says = {entry.key: entry.value for entry in model.metadata_props}
    assert GeneratorConfig(**json.loads(says["config"])) == CONFIGS["instance"]
    assert says["weights_sha256"] == load_info(folder / "instance")["sha256"]
    assert (
        says["sizes"] == "64 x 64"
        and says["value_range"] == "[-1, 1]"
        and int(says["macs_exact"]) > 0
        and says["macs_image_size"] == "64"
    )


def test_a_file_that_disagrees_is_not_published(folder, monkeypatch):
    path = folder / "kept.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(export, "TOLERANCE", {"fp16": 1e-9})
    with pytest.raises(ValueError, match=r"fp16 network does not agree with PyTorch .* nothing was written"):
        export_onnx(folder / "batch", path, precision="fp16")
    assert path.read_bytes() == b"old" and not [*folder.glob(".kept*")]


def test_the_command_line(folder, tmp_path, capsys):
    made = ["--out", str(tmp_path / "a.onnx"), "--size", "32"]
    assert main(["export", f"{folder / 'batch'}.safetensors", *made]) == 0, "as a shell completes it"
    assert "fp32" in capsys.readouterr().out and (tmp_path / "a.onnx").exists()
    save_generator(trained(CONFIGS["batch"], 1), tmp_path / "alone")
    for arguments, sentence in {
        ("--precision", "int8"): "name a saved task .* with --data",
        ("--size", "big"): "--size is a number of pixels or dynamic, got 'big'",
        ("--size", "30"): "multiples of 4, got 30 x 30",
    }.items():
        assert main(["export", str(tmp_path / "alone"), *arguments]) == 1
        assert re.search(sentence, capsys.readouterr().err)
    int8 = ["--precision", "int8", "--data", f"{folder / 'data'}.json", "--out", str(tmp_path / "int8.onnx")]
    assert main(["export", str(tmp_path / "alone"), *int8]) == 0, capsys.readouterr().err
    (tmp_path / "int8.onnx").unlink()
    assert not np.any([path.suffix == ".onnx" and path.name != "a.onnx" for path in tmp_path.iterdir()])
