"""The checkpoint: one safe, self-contained file, written completely or not at all, and verified before use.

The file is one dictionary of plain values and tensors in the layout of `torch.save`, with the textbook's keys (`epoch`,
`model_state_dict`, `optimizer_state_dict`, `loss`, `val_loss`) and those of `Checkpoint`. `load` checks in this order:
the layout of the file (`archive`), the opcodes of its pickle (`pickles`), torch's own `weights_only=True`, and the
values (`contents`). `experiment` checks that they match the model that the spec builds.
"""

from linreg.checkpoint.contents import FORMAT, VERSION, Checkpoint
from linreg.checkpoint.files import load, load_or_advise, load_states, newest, save, save_states
from linreg.checkpoint.serializing import serialize
from linreg.checkpoint.summarizing import summary

__all__ = [
    "FORMAT",
    "VERSION",
    "Checkpoint",
    "load",
    "load_or_advise",
    "load_states",
    "newest",
    "save",
    "save_states",
    "serialize",
    "summary",
]
