"""Tensors and what describes them: `X.safetensors`, and beside it `X.json` with their checksum.

The JSON is written last, so that an interrupted save is noticed, not read. Without tensors there is the JSON alone.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from i2i_lib.files import atomic_write, read_json, write_json

FORMAT = 1


def artifact_file(path: Path | str, suffix: str) -> Path:
    """One of an artifact's files. `path` may hold dots: the suffix is added, not replaced."""
    path = Path(path)
    return path.with_name(f"{path.name}.{suffix}")


def without_suffix(path: str) -> str:
    """An artifact's path, where a shell completed it to one of its files."""
    return path.removesuffix(".safetensors").removesuffix(".json")


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Content of a safetensors file. No two tensors may share memory."""
    return safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def write_artifact(
    path: Path | str, kind: str, record: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write the tensors, where there are any, and then `record` (plain JSON) with their checksum."""
    described = {"format": FORMAT, "kind": kind, **record}
    if tensors is not None:
        data = tensor_bytes(tensors)
        atomic_write(artifact_file(path, "safetensors"), data)
        described["sha256"] = hashlib.sha256(data).hexdigest()
    write_json(artifact_file(path, "json"), described)


def read_record(path: Path | str, kinds: Collection[str] | None = None) -> dict[str, Any]:
    """Read an artifact's JSON, without its tensors; by default of any kind.

    Raises FileNotFoundError, or ValueError naming the file that is damaged, of another format or of another kind.
    """
    file = artifact_file(path, "json")
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: {_way_out(Path(path))}")
    record = read_json(file)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{file} is not of format {FORMAT}: make it again")
    kind = str(record.get("kind"))
    if kinds is not None and kind not in kinds:
        raise ValueError(f"{file} holds kind {kind!r}, expected {' or '.join(map(repr, kinds))}")
    return record


def _way_out(path: Path) -> str:
    """A sentence that helps to name an artifact that is there."""
    bare = Path(without_suffix(str(path)))
    if bare != path:
        return f"name it without suffix, {bare}"
    if path.is_file():
        return f"{path} was not saved by this library. `i2i compress` reads generators of other codes, too"
    if path.is_dir() and (names := _saved_in(path)):
        return f"{path} is a folder: name what it holds, such as {path / names[0]}"
    if not path.parent.is_dir():
        return f"nor does its folder, {path.parent}"
    if names := _saved_in(path.parent):
        return f"beside it there are {', '.join(names[:20])}"
    return f"{'this folder' if path.parent == Path('.') else path.parent} holds no saved network or task"


def _saved_in(folder: Path) -> list[str]:
    """The names of the artifacts in a folder; one of the folder's own name comes first."""
    names = [file.stem for file in folder.glob("*.safetensors") if file.with_suffix(".json").exists()]
    return sorted(names, key=lambda name: (name != folder.name, name))


def read_tensors(path: Path | str, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read an artifact's tensors once they match the checksum in its record.

    Raises FileNotFoundError, or ValueError naming the file that is truncated, changed or of an interrupted save.
    """
    file = artifact_file(path, "safetensors")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != record.get("sha256"):
        raise ValueError(
            f"{file} does not match the checksum in {artifact_file(path, 'json').name}: it was truncated, changed, or"
            " its saving was interrupted. Make it again"
        )
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:  # the second for a type of number that PyTorch does not have
        raise ValueError(f"{file} is not a safetensors file: {error}") from error
