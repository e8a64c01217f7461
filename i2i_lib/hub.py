"""Generators on a model hub: `hf://owner/name@revision`, and `i2i push`.

A repository holds `generator.safetensors` and `generator.json` as `save_generator` writes them, a model card, and an
ONNX file where one came along. The hub is huggingface.co, or what the variable HF_ENDPOINT names.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from i2i_lib.artifacts import artifact_file, read_record

SCHEME = "hf://"
NAME = "generator"  # of the files in a repository, without suffix
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")


def is_address(path: object) -> bool:
    """Whether a path is an address on a hub."""
    return str(path).startswith(SCHEME)


def fetch_generator(address: str) -> Path:
    """Download a generator, or find it in the hub's cache on this machine; return its path without suffix.

    An address without revision means the newest. Its files are all of one commit. Raises ValueError for what is no
    address, and ConnectionError with the hub's reason where nothing can be had.
    """
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise ValueError(
            f"{address} is no address of a generator: expected hf://owner/name or hf://owner/name@revision"
        )
    from huggingface_hub import snapshot_download

    repository, revision = found.groups()
    files = [f"{NAME}.safetensors", f"{NAME}.json"]
    with _told(address):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{address} holds no {' and no '.join(missing)}: it was not put there by `i2i push`")
    return folder / NAME


def push_generator(
    generator: Path, repository: str, card: str, *, onnx: Path | None = None, private: bool = False
) -> str:
    """Put the generator saved at `generator` (no suffix) on the hub, with its card; return the commit's address.

    `repository` is "owner/name", made if need be. Raises ValueError for another form, and ConnectionError with the
    hub's reason, such as a missing token.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"a repository is owner/name, got {repository!r}")
    read_record(generator)  # that there is one
    from huggingface_hub import HfApi

    with TemporaryDirectory() as work:
        folder = Path(work)
        for suffix in ("safetensors", "json"):
            shutil.copy(artifact_file(generator, suffix), folder / f"{NAME}.{suffix}")
        if onnx:
            shutil.copy(onnx, folder / f"{NAME}.onnx")
        (folder / "README.md").write_text(card)
        hub = HfApi(library_name="i2i-lib")
        with _told(f"{SCHEME}{repository}"):
            hub.create_repo(repository, private=private, exist_ok=True)
            commit = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="A generator of i2i-lib")
    return f"{SCHEME}{repository}@{commit.oid}"


def card_text(title: str, licence: str, measured: Mapping[str, float], pictures: str, body: str) -> str:
    """A model card: a header as hubs read it, with each measure's value by name, and the body.

    `pictures` says on how many of what was measured.
    """
    from huggingface_hub import EvalResult, ModelCardData

    of: dict[str, Any] = {"task_type": "image-to-image", "dataset_type": "other", "dataset_name": pictures}
    header = ModelCardData(
        model_name=title,
        license=licence,
        library_name="i2i-lib",
        pipeline_tag="image-to-image",
        eval_results=[EvalResult(metric_type=name, metric_value=value, **of) for name, value in measured.items()],
    )
    return f"---\n{header.to_yaml()}\n---\n\n{body.rstrip()}\n"


@contextmanager
def _told(address: str) -> Iterator[None]:
    """The hub's errors as one that a command tells in a sentence."""
    try:
        yield
    except Exception as error:  # its client raises the errors of one HTTP library or another, by its version
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConnectionError(f"{address}: {reason[:300]}") from error
