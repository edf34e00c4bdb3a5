"""A checkpoint, written and opened."""

import contextlib
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from linreg.checkpoint import archive, pickles
from linreg.checkpoint.archive import Unsound
from linreg.checkpoint.contents import FORMAT, KEYS, VERSION, Checkpoint, problems, shown, strange
from linreg.checkpoint.serializing import serialize
from linreg.errors import CheckpointError
from linreg.system.files import replace_file

_OF_A_RUN = re.compile(r"(last|best|epoch_[0-9]{6,})\.pth")
OLDEST_TORCH = (2, 10)  # the first whose weights_only is sound


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all: an older file of that name stays until the new one is on disk.
    Raises StorageError, and what `serialize` raises."""
    replace_file(path, serialize(checkpoint))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in plain values, depth first."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _checksums(content: Any) -> list[int]:
    """The checksums of the tensors in plain values, in their order. They tell a tensor in the place of another, or one
    that torch did not read to its end; the zip's own would be right."""
    tensors = {id(tensor): tensor for tensor in _tensors(content)}
    return [zlib.crc32(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data) for tensor in tensors.values()]


def load(path: str | Path) -> Checkpoint:
    """Open a checkpoint, on the CPU, without running or importing anything from it, or reading another file.

    Raises CheckpointError if it is not there, is damaged, was not written by linreg or by a later version of it.
    """
    path = Path(path)
    _refuse_old_torch(path)
    try:
        content = _opened(path)
        if content.get("format") != FORMAT:
            textbook = "model_state_dict" in content
            what = "a state without a spec, as the textbook saves it" if textbook else "a PyTorch file of another kind"
            raise Unsound(f"{what}; name a checkpoint that linreg train wrote")
        if content.get("version") != VERSION or type(content["version"]) is not int:
            raise Unsound(
                f"of version {shown(content.get('version'))}, and this linreg reads version {VERSION}; "
                "use the linreg that wrote it, or train anew"
            )
        found = problems(content)
        if not found and content["checksums"] != _checksums(content):
            raise Unsound(
                "damaged: a tensor is not the one that was saved in its place; use another checkpoint of the run"
            )
        if found:
            more = f", and {len(found) - 10} more" if len(found) > 10 else ""
            raise Unsound(f"not a whole checkpoint: {', '.join(found[:10])}{more}; use another")
    except Unsound as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Checkpoint(**{key: content[key] for key in KEYS}, path=path)


def load_or_advise(path: str | Path) -> Checkpoint:
    """Open a checkpoint as `load` does. Of one that a run wrote, by its name, the error names the newest good one
    beside it."""
    try:
        return load(path)
    except CheckpointError as error:
        found = newest(Path(path).parent) if _OF_A_RUN.fullmatch(Path(path).name) else None
        if found is None:
            raise
        raise CheckpointError(f"{error}; the newest good one there is {found.path}") from None


def newest(folder: Path) -> Checkpoint | None:
    """Open, of the checkpoints in a run's folder that are not damaged, the one that came furthest."""
    found: Checkpoint | None = None
    for path in sorted(path for path in folder.glob("*.pth") if _OF_A_RUN.fullmatch(path.name)):
        with contextlib.suppress(CheckpointError):
            saved = load(path)
            further = found is None or (saved.epoch, len(saved.position)) > (found.epoch, len(found.position))
            if further and saved.run["name"] == folder.absolute().name:
                found = saved
    return found


def _refuse_old_torch(path: Path) -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        raise CheckpointError(
            f"{path}: torch {torch.__version__} is not safe to open it with; install torch 2.10 or later"
        )


def _opened(path: Path) -> dict[str, Any]:
    """Read a file and take it through every gate but the last: a dictionary of plain values and dense tensors."""
    try:
        content = archive.read(path)
    except FileNotFoundError:
        raise Unsound("no such checkpoint; linreg runs lists those there are") from None
    except IsADirectoryError:
        raise Unsound(f"a folder; name a checkpoint in it, such as {path / 'last.pth'}") from None
    except (OSError, ValueError) as error:  # a ValueError for a name with a zero byte
        raise Unsound(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    records = archive.records(content)
    pickle = bytes(records["data.pkl"])
    pickles.check(pickle, archive.storages(records))
    try:
        loaded: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True, mmap=False)
    except Exception:  # many kinds were met, and their texts advise weights_only=False
        raise Unsound("holds what torch does not open; use another checkpoint of the run") from None
    del content, records  # as large as the tensors
    found = strange(loaded, most=2 * len(pickle))
    if found:
        raise Unsound(f"{found}; use a checkpoint that linreg train wrote")
    return loaded
