"""Whether several processes can share a spec. No torch is imported here."""

from linreg.errors import SpecError
from linreg.spec.schema import ExperimentSpec


def refuse_unshared(spec: ExperimentSpec, size: int) -> None:
    """Raise a SpecError for a spec whose work cannot be divided among `size` processes."""
    shards, where = spec.data.shards, spec.where("data", "shards")
    if size == 1:
        return
    if shards is None:
        raise SpecError([f"{where}: missing, and {size} processes share one run; add for instance shards: {size}"])
    if shards < size:
        raise SpecError([f"{where}: {shards} for {size} processes, and each needs one; use more, or fewer processes"])
