"""Logical shards: how a mini-batch is cut into parts, whose gradients are added in a fixed order.

The parts do not depend on the number of processes, so losses and parameters have the same bits for any number of them.
`experiment` builds the engine; an `Exchange` adds what several processes have computed.
"""

from linreg.training.shards.engine import make_sharded_engine
from linreg.training.shards.exchange import Exchange

__all__ = ["Exchange", "make_sharded_engine"]
