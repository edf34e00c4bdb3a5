"""The checkpoint: one safe, self-contained file. Saved whole or not at all; verified before it is believed.

The file is one dictionary of plain values and tensors, as `torch.save` lays it out, with the textbook's keys (`epoch`,
`model_state_dict`, `optimizer_state_dict`, `loss`, `val_loss`) and those of `Checkpoint`. On the way in, each gate
leaves less to the next: the layout of the file (`archive`), the opcodes of its pickle (`pickles`), torch's own
`weights_only=True`, and what the values are (`contents`). Whether they fit what the spec builds is for `experiment`.
"""

from linreg.checkpoint.contents import FORMAT, VERSION, Checkpoint, summary
from linreg.checkpoint.files import load, load_or_advise, newest, save
from linreg.checkpoint.serializing import serialize

__all__ = ["FORMAT", "VERSION", "Checkpoint", "load", "load_or_advise", "newest", "save", "serialize", "summary"]
