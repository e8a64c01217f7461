"""Damaged and hostile input, made by chance: it is read as a whole, or refused by a documented error.

1,000 cases, always the same ones; with I2I_CASES=100000, which `make stress` sets, that many others each time.
"""

import copy
import hashlib
import io
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens import official, official_resnet, tracked_resnet
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from i2i_book import presets
from i2i_lib.checkpoint import (
    build,
    load_discriminator,
    load_generator,
    load_plan,
    save_discriminator,
    save_generator,
    save_plan,
)
from i2i_lib.config import (
    BlockWidths,
    DiscriminatorConfig,
    GeneratorConfig,
    MultiscaleDiscriminatorConfig,
    ResnetConfig,
    SpadeResnetConfig,
    cat_spade_teacher,
    cat_teacher,
)
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import Task, Tiles, to_batch
from i2i_lib.official import from_cat_state_dict
from i2i_lib.prune import prune
from i2i_lib.threshold import ChannelPlan

CASES = int(os.environ.get("I2I_CASES", 1000))
REFUSED = (ValueError, OSError)


def cases(percent: int) -> Callable:
    return settings(
        max_examples=max(CASES * percent // 100, 1),
        derandomize="I2I_CASES" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
        phases=[Phase.generate, Phase.shrink],  # explaining a failure would trace every line of every case
    )


@contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="i2i-fuzz-") as folder:
        yield Path(folder)


# --- JSON, and what it describes --------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(-2, 40), st.sampled_from([10**6, 10**9, 10**30, -(2**63), 0.5, 1e308]))
ODD = st.one_of(
    NUMBERS,
    st.sampled_from([None, True, float("nan"), float("inf"), "", "3", "../../x", "\0", "é\udcff", [], {}, [[]]]),
    st.lists(NUMBERS, max_size=4),
    st.dictionaries(st.sampled_from(["conv", "stem", "x", "+x"]), NUMBERS, max_size=2),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with every key of it."""
    if not isinstance(value, dict | list):
        return []
    inside = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [(value, key) for key, _ in inside] + [place for _, inner in inside for place in places(inner)]


@st.composite
def damaged(draw: Any, document: Any) -> Any:
    """`document` with one to three entries replaced, removed, renamed or doubled."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        if not (found := places(document)):
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "double"]))
        if action == "replace":
            container[key] = copy.deepcopy(draw(ODD))  # which a later replacement inside it must not change
        elif action == "remove":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        else:
            container[draw(st.sampled_from(["x", "format", "", "stem.0"]))] = container[key]
    return document


@st.composite
def garbled(draw: Any, data: bytes) -> bytes:
    """`data` cut short, with bytes changed, or with some put in."""
    at = draw(st.integers(0, len(data) - 1))
    match draw(st.sampled_from(["cut", "flip", "flip", "insert"])):
        case "cut":
            return data[:at]
        case "flip":
            return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
        case _:
            return data[:at] + draw(st.binary(max_size=40)) + data[at:]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> list[tuple[Path, Callable[..., Any]]]:
    """A small network of every kind, and what loads it."""
    folder = tmp_path_factory.mktemp("saved")
    hidden = BlockWidths((2, 0, 1), (0, 2, 1))
    generators = [
        GeneratorConfig((2, 3, 4), (hidden,) * 3, (3, 2), "batch"),
        ResnetConfig(2, 3),
        cat_spade_teacher(1, 3, 2, hidden=6),
        SpadeResnetConfig(1, 3, 2, hidden=2),
    ]
    judges = [DiscriminatorConfig(base=2, n_layers=1), MultiscaleDiscriminatorConfig(4, 2, 1, 1)]
    found: list[tuple[Path, Callable[..., Any]]] = []
    for configs, save, load in (
        (generators, save_generator, load_generator),
        (judges, save_discriminator, load_discriminator),
    ):
        for config in configs:
            path = folder / str(len(found))
            save(build(config), path)
            found.append((path, load))
    return [found[1], found[4]] * 8 + found  # mostly those without spectral norms, which are built fast


@cases(30)
@given(data=st.data())
def test_configs(saved, data):
    path, load = data.draw(st.sampled_from(saved))
    record = json.loads(path.with_suffix(".json").read_text())
    with a_folder() as folder:
        shutil.copy(path.with_suffix(".safetensors"), folder / "net.safetensors")
        if data.draw(st.integers(0, 3)):
            text = json.dumps(data.draw(damaged(record))).encode()
        else:
            text = data.draw(garbled(json.dumps(record).encode()))
        (folder / "net.json").write_bytes(text)
        try:
            network = load(folder / "net")
        except REFUSED as error:
            assert "net." in str(error), "which names the file"
        else:
            assert all(value.device.type == "cpu" for value in network.state_dict().values())


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan"
    save_plan(prune(build(cat_teacher(6, 3, "batch")), 300_000, image_size=16), path)
    return path.with_suffix(".json")


@cases(20)
@given(data=st.data())
def test_plans(plan, data):
    record = json.loads(plan.read_text())
    broken = st.one_of(damaged(record).map(lambda v: json.dumps(v).encode()), garbled(json.dumps(record).encode()))
    with a_folder() as folder:
        (folder / "plan.json").write_bytes(data.draw(broken))
        try:
            found = load_plan(folder / "plan")
        except REFUSED as error:
            assert "plan.json" in str(error)
        else:
            assert isinstance(found, ChannelPlan)
            assert all(type(i) is int for channels in found.keep.values() for i in channels)


# --- tensors ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("task") / "data"
    pictures, numbers = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int64)
    tiles = Tiles(pictures, pictures, torch.arange(2), numbers, numbers)
    info = {"image_size": 8, "direction": "AtoB", "options": {}}
    save_task(Task("earth", "pix2pix", tiles, tiles, info), path)
    return path


DTYPES = ["I32", "U32", "I64", "F64", "F4", "C64", "BOOL", "F8_E8M0"]


def with_header(header: Any, rest: bytes) -> bytes:
    """A safetensors file: the length of its header, the header, the numbers."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


@cases(25)
@given(data=st.data())
def test_safetensors(saved, task, data):
    """Files whose damage their checksum does not show, as someone would make them on purpose."""
    path, load = data.draw(st.sampled_from([*saved, (task, load_saved_task)]))
    content = path.with_suffix(".safetensors").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    names = sorted(header)
    match data.draw(st.sampled_from(["header", "type", "bytes", "length", "record"])):
        case "header":
            content = with_header(data.draw(damaged(header)), rest)
        case "type":  # of as many bytes, so that the rest still fits
            name = data.draw(st.sampled_from(names))
            header[name]["dtype"] = data.draw(st.sampled_from(DTYPES))
            content = with_header(header, rest)
        case "bytes":
            content = data.draw(garbled(content))
        case "length":
            length = data.draw(st.sampled_from([0, 1, size - 1, size + 1, 2**32, 2**63]))
            content = struct.pack("<Q", length) + content[8:]
    record = json.loads(path.with_suffix(".json").read_text())
    if load is load_saved_task and data.draw(st.booleans()):
        record = data.draw(damaged(record))
    with a_folder() as folder:
        (folder / "net.safetensors").write_bytes(content)
        if isinstance(record, dict):
            record["sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "net.json").write_text(json.dumps(record))
        try:
            load(folder / "net")
        except REFUSED as error:
            assert "net." in str(error)


TENSORS = st.sampled_from(
    [
        torch.tensor(1.0), torch.zeros(0), torch.zeros(3, 0, 1, 1), torch.zeros(2, 3, 7, 7), torch.zeros(4, 4, 2, 2),
        torch.zeros(1).expand(10**6, 10**6, 7, 7), torch.zeros(2, 2, dtype=torch.bool),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(2, 3, 7, 7, dtype=torch.int8), torch.zeros(3, 3).to_sparse(), torch.zeros(5, device="meta"),
        torch.zeros(1).expand(10**9), torch.full((3,), float("nan")), "text", None, [1], {"a": torch.zeros(1)},
    ]
)  # fmt: skip
KEYS = ["module.x", 3, None, "", "features.99999999999999999999.pw_bn.weight", "model.10.conv_block.1.weight"]
STATES = {"inception": official(), "resnet": official_resnet(), "spade": official("inception_spade")}
STATES["tracked"] = tracked_resnet()


@pytest.mark.filterwarnings("ignore:.*statistics|.*ignored:UserWarning")
@cases(15)
@given(data=st.data())
def test_foreign_state_dicts(data):
    kind = data.draw(st.sampled_from(sorted(STATES)))
    state: dict[Any, Any] = dict(STATES[kind])
    names = sorted(state)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(names))
        match data.draw(st.sampled_from(["put", "put", "remove", "rename", "add", "slice"])):
            case "put":
                state[name] = data.draw(TENSORS)
            case "remove":
                state.pop(name, None)
            case "rename":
                state[data.draw(st.sampled_from(KEYS))] = state.pop(name, None)
            case "add":
                state[data.draw(st.sampled_from([f"{name}.x", *KEYS]))] = data.draw(TENSORS)
            case _:
                if isinstance(state.get(name), torch.Tensor) and state[name].ndim and not state[name].is_sparse:
                    state[name] = state[name][: data.draw(st.integers(0, 2))]
    given_state: Any = data.draw(st.sampled_from([state, state, state, state, list(state.values()), None]))
    try:
        network = from_cat_state_dict(given_state, upsamplings=data.draw(st.sampled_from([2, 5, 6, 7, -1])))
    except REFUSED:
        return
    assert not network.training and all(not value.is_meta for value in network.state_dict().values())


# --- folders ----------------------------------------------------------------------------------------------------------


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 12), 80).convert("RGB").save(file, kind)
    return file.getvalue()


KINDS_OF_PICTURE = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF"}
PICTURES = {suffix: picture(kind) for suffix, kind in KINDS_OF_PICTURE.items()}
NAMES = st.sampled_from(["a", "b", "c", ".hidden", "new\nline", "é", "caf\udce9", "x" * 200, "-rf", "%s{0}", "a.b"])
FOLDERS = [["trainA", "trainB"], ["train"], ["trainA", "trainB", "testA", "testB"], ["train", "val"], ["trainA"]]
TORN = [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"text"]


@cases(10)
@given(data=st.data())
def test_folders(data):
    with a_folder() as folder:
        layout = data.draw(st.sampled_from(["auto", "unpaired", "paired", "side-by-side"]))
        for part in data.draw(st.sampled_from(FOLDERS)):
            place = folder / "in" / part
            place.mkdir(parents=True)
            for _ in range(data.draw(st.integers(0, 4))):
                suffix = data.draw(st.sampled_from(sorted(PICTURES)))
                path = place / (data.draw(NAMES) + data.draw(st.sampled_from([suffix, suffix.upper(), ".txt"])))
                if os.path.lexists(path):
                    continue
                match data.draw(st.integers(0, 19)):
                    case 0:
                        path.symlink_to(folder / "nowhere")
                    case 1:
                        path.mkdir()
                    case 2 | 3:
                        path.write_bytes(data.draw(garbled(PICTURES[suffix])))
                    case 4 | 5:
                        path.write_bytes(data.draw(st.sampled_from(TORN)))
                    case _:
                        path.write_bytes(PICTURES[suffix])
        before = sorted(folder.rglob("*"))
        try:
            found = load_task("folder", image_size=12, path=folder / "in", layout=layout)
            save_task(found, folder / "saved")
            again = load_saved_task(folder / "saved")
            if again.train.paired:
                assert to_batch(again.train, slice(None)).source.shape[1:] == (3, 13, 13)
        except REFUSED as error:
            assert len(str(error)) > 20
        saved = {*folder.glob("saved*"), *folder.glob("saved*/*")}
        assert set(folder.rglob("*")) - saved == set(before)


def test_deep_nesting_is_refused(tmp_path):
    """The parser's own limit is no ValueError."""
    (tmp_path / "net.json").write_text("[" * 20_000)
    for load in (load_generator, load_plan, load_saved_task):
        with pytest.raises(ValueError, match=r"net\.json is not"):
            load(tmp_path / "net")
    (tmp_path / "deep.yml").write_text("[" * 2000)
    with pytest.raises(ValueError, match=r"deep\.yml is not YAML"):
        presets.load_preset(str(tmp_path / "deep.yml"))
