"""The options that several commands share, each said once."""

from pathlib import Path
from typing import Annotated

import typer

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="A YAML experiment spec.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings to override, as optimizer.lr=0.05.", show_default=False),
]
LatestCheckpoint = Annotated[
    Path | None,
    typer.Argument(metavar="CKPT", help="A checkpoint (.pth); by default the newest one.", show_default=False),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.", show_default=False),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the experiment and its folders.", show_default=False),
]
Epochs = Annotated[int | None, typer.Option("--epochs", metavar="N", help="Epochs in all.", show_default=False)]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the runs.")]
Checkpoints = Annotated[Path, typer.Option("--checkpoints", metavar="DIR", help="Folder of the checkpoints.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
Expect = Annotated[
    list[str] | None,
    typer.Option(
        "--expect",
        metavar="TEXT",
        help='Exit with 7 unless met, as "val_loss<0.02" (< <= > >= == !=); repeatable.',
        show_default=False,
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE.py", help="Import components of your own; repeatable.", show_default=False),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

RUNS, CHECKPOINTS = Path("runs"), Path("checkpoints")
