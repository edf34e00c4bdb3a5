"""Saves and loads checkpoints. All other packages use these functions."""

import contextlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from linreg.checkpoint import archive, pickles
from linreg.checkpoint.archive import Unsound
from linreg.checkpoint.contents import (
    FORMAT,
    KEYS,
    LATER,
    VERSION,
    Checkpoint,
    completed,
    content_problems,
    is_finite,
    printable,
    value_problem,
)
from linreg.checkpoint.serializing import checksum, serialize, to_bytes
from linreg.errors import CheckpointError
from linreg.system.files import replace_file

_OF_A_RUN = re.compile(r"(last|best|epoch_[0-9]{6,})\.pth")
STATES, STATES_VERSION = "linreg sweep", 1
_PARTS = defaultdict(lambda: "members", optimizer="optimizer_state_dicts", scheduler="scheduler_state_dicts")
_OF = ("members", "optimizer_state_dicts", "scheduler_state_dicts")  # the others may have infinite numbers
OLDEST_TORCH = (2, 10)  # older ones have holes in weights_only


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint completely or not at all: an older file of that name stays until the new one is on disk.

    Raises StorageError and the errors of `serialize`."""
    replace_file(path, serialize(checkpoint))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in plain values, depth first."""
    if isinstance(value, torch.Tensor):
        yield value
    elif type(value) in (dict, list, tuple):
        for item in value.values() if type(value) is dict else value:
            yield from _tensors(item)


def checksums(content: Any) -> list[int]:
    """Return the checksums of the tensors in plain values, in their order.

    They detect swapped and incompletely read tensors, which the checksums of the zip do not."""
    return [checksum(tensor) for tensor in {id(tensor): tensor for tensor in _tensors(content)}.values()]


def load(path: str | Path) -> Checkpoint:
    """Load a checkpoint to the CPU, without running or importing anything from it, or reading another file.

    Raises CheckpointError if it is missing or damaged, or not written by this version of linreg.
    """
    path = Path(path)
    _refuse_old_torch(path)
    try:
        content = _opened(path)
        if content.get("format") == STATES:
            raise Unsound("the states of a sweep; to continue it, run its linreg sweep command with --resume")
        if content.get("format") != FORMAT:
            is_textbook = "model_state_dict" in content
            kind = "a state without a spec, as in the textbook" if is_textbook else "another kind of PyTorch file"
            raise Unsound(f"{kind}; use a checkpoint written by linreg train")
        if content.get("version") != VERSION or type(content["version"]) is not int:
            raise Unsound(
                f"version must be {VERSION}, got {printable(content.get('version'))}; "
                "use the version of linreg that wrote it, or train again"
            )
        content |= {key: value for key, value in LATER.items() if key not in content}
        problems = content_problems(content)
        if not problems and content["checksums"] != checksums(content):
            raise Unsound("damaged: wrong checksum of a tensor; use another checkpoint of the run")
        if problems:
            more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise Unsound(f"invalid checkpoint: {', '.join(problems[:10])}{more}; use another")
    except Unsound as error:
        raise CheckpointError(f"{path}: {error}") from None
    if content["fit"] is not None:
        content["fit"] = completed(content["fit"])
    return Checkpoint(**{key: content[key] for key in KEYS}, path=path)


def save_states(path: Path, members: Sequence[Mapping[str, Any]]) -> None:
    """Write the states of many models completely or not at all. members: their states by name, those of optimizer and
    scheduler as `optimizer` and `scheduler`. A member with a tensor that is not finite is left out: `load_states` would
    refuse it. Raises StorageError and the errors of `serialize`."""
    members = [member for member in members if all(map(is_finite, _tensors(member)))]
    parts = {of: [{key: member[key] for key in member if _PARTS[key] == of} for member in members] for of in _OF}
    replace_file(path, to_bytes(parts, format=STATES, version=STATES_VERSION, name=str(path)))


def load_states(path: Path) -> list[dict[str, Any]]:
    """Load the states of `save_states` to the CPU, as safely as `load`. The caller checks that they fit its models.

    Raises CheckpointError if the file is missing or damaged, or not written by this version of linreg."""
    _refuse_old_torch(path)
    try:
        content = _opened(path)
        if (content.get("format"), content.get("version")) != (STATES, STATES_VERSION):
            raise Unsound("not the states of a sweep of this version of linreg")
        parts = [content.get(of) for of in _OF]
        if not all(type(part) is list and all(type(states) is dict for states in part) for part in parts):
            raise Unsound("not the states of a sweep")
        if len({len(part) for part in parts if part is not None}) != 1 or content.get("checksums") != checksums(parts):
            raise Unsound("damaged: wrong checksum of a tensor")
    except Unsound as error:
        raise CheckpointError(f"{path}: {error}") from None
    return [{**states, **optimizer, **scheduler} for states, optimizer, scheduler in zip(*parts, strict=True)]


def load_or_advise(path: str | Path) -> Checkpoint:
    """Load a checkpoint. If a run wrote it, by its name, an error lists the newest good one in its folder."""
    try:
        return load(path)
    except CheckpointError as error:
        good = newest(Path(path).parent) if _OF_A_RUN.fullmatch(Path(path).name) else None
        if good is None:
            raise
        raise CheckpointError(f"{error}; the newest good one there is {good.path}") from None


def newest(folder: Path) -> Checkpoint | None:
    """Load the checkpoint with the most training done of the good ones in a run's folder; None without any."""
    best: Checkpoint | None = None
    for path in sorted(path for path in folder.glob("*.pth") if _OF_A_RUN.fullmatch(path.name)):
        with contextlib.suppress(CheckpointError):
            saved = load(path)
            is_newer = best is None or (saved.epoch, len(saved.position)) > (best.epoch, len(best.position))
            if is_newer and saved.run["name"] == folder.absolute().name:
                best = saved
    return best


def _refuse_old_torch(path: Path) -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        raise CheckpointError(
            f"{path}: torch {torch.__version__} cannot open checkpoints safely; install torch 2.10 or later"
        )


def _opened(path: Path) -> dict[str, Any]:
    """Read a file and check it up to a dictionary of plain values and dense tensors. Raises Unsound."""
    try:
        content = archive.read(path)
    except FileNotFoundError:
        raise Unsound("no such checkpoint; linreg runs lists the existing ones") from None
    except IsADirectoryError:
        raise Unsound(f"a folder; use a checkpoint in it, such as {path / 'last.pth'}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise Unsound(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    records = archive.records(content)
    pickle = bytes(records["data.pkl"])
    pickles.check(pickle, archive.storages(records))
    try:
        loaded: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True, mmap=False)
    except Exception:  # torch raises many kinds, with texts that advise weights_only=False
        raise Unsound("torch cannot open it; use another checkpoint of the run") from None
    del content, records  # each as large as the tensors
    problem = value_problem(loaded, most=2 * len(pickle))
    if problem:
        raise Unsound(f"{problem}; use a checkpoint written by linreg train")
    return loaded
