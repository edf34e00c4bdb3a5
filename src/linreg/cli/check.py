"""`linreg check`."""

from linreg.cli import options as o
from linreg.cli.loading import load_spec
from linreg.cli.text import format_count, format_value, print_json, print_stderr, print_stdout, show_log
from linreg.system.startup import importing_torch


def check(
    spec: o.Spec,
    overrides: o.Overrides = None,
    device: o.Device = None,
    name: o.Name = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    plugin: o.Plugin = None,
) -> None:
    """Build a spec and run one batch; print the resolved spec."""
    loaded = load_spec(spec, o.add_overrides(overrides, device=device, name=name), plugin)

    with importing_torch():
        from linreg.experiment.checking import check

    show_log(quiet=quiet)
    checked = check(loaded)
    if json:
        print_json({"spec": loaded.to_dict(), **checked})
        return
    if not quiet:
        for_test = f"{checked['n_test']} for test, " if checked["n_test"] else ""
        print_stderr(
            f"ok: {checked['n_train']} of {checked['n_samples']} points for training, "
            f"{for_test}"
            f"{format_count(len(checked['features']), 'feature')}, {checked['n_parameters']} parameters, "
            f"on {checked['device']}; {'exact' if loaded.solver == 'exact' else 'first batch'}: "
            f"loss {format_value(checked['loss'])}, val_loss {format_value(checked['val_loss'])}"
        )
    print_stdout(loaded.to_yaml().rstrip("\n"))
