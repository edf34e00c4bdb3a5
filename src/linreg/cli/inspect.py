"""`linreg inspect`."""

from linreg.cli import options as o
from linreg.cli.loading import checkpoint_or_latest
from linreg.cli.text import coefficients_table, print_json, print_stdout
from linreg.system.startup import importing_torch


def inspect(
    checkpoint: o.LatestCheckpoint = None, checkpoints: o.Checkpoints = o.CHECKPOINTS, json: o.Json = False
) -> None:
    """Show the content of a checkpoint, without running it."""
    path = checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg.checkpoint import load_or_advise, summary
    from linreg.spec.document import write_yaml

    content = summary(load_or_advise(path))
    if json:
        print_json(content)
        return
    coefficients = content.pop("coefficients", None)
    print_stdout(write_yaml(content).rstrip("\n"))
    if coefficients:
        print_stdout("coefficients:\n" + coefficients_table(coefficients))
