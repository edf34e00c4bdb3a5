"""`linreg check`."""

from pathlib import Path
from typing import Any

from linreg.cli import options as o
from linreg.cli.loading import has_sweep, load_plugins, load_spec
from linreg.cli.text import (
    format_count,
    format_duration,
    format_value,
    print_json,
    print_stderr,
    print_stdout,
    show_log,
)
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
    """Build a spec and run one batch, or build all models of a sweep; print the resolved spec."""
    changes = o.add_overrides(overrides, device=device, name=name)
    if has_sweep(spec, changes):
        _check_sweep(spec, changes, json, quiet, plugin)
        return
    loaded = load_spec(spec, changes, plugin)

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
        if "step_seconds" in checked:
            print_stderr(_sharing(checked))
    print_stdout(loaded.to_yaml().rstrip("\n"))


def _sharing(checked: dict[str, Any]) -> str:
    """Say whether more processes make the training faster."""
    step, exchange = (f"{1000 * checked[key]:.2g} ms" for key in ("step_seconds", "exchange_seconds"))
    text = f"shards: a step takes about {step}, and its exchange between processes {exchange}"
    size = checked["worthwhile_batch_size"]
    if size is None:
        return f"{text}; more processes make it faster"
    return f"{text}; more processes make it slower below a batch size of about {size}"


def _check_sweep(spec: Path, overrides: list[str], json: bool, quiet: bool, plugin: list[Path] | None) -> None:
    from linreg.spec.sweeps import load_sweep

    load_plugins(plugin)
    loaded = load_sweep(spec, overrides)

    with importing_torch():
        from linreg.experiment.sweeps.checking import check_sweep

    show_log(quiet=quiet)
    checked: dict[str, Any] = check_sweep(loaded)
    if json:
        print_json(checked)
        return
    if not quiet:
        models, trials = format_count(checked["n_models"], "model"), format_count(checked["n_trials"], "trial")
        print_stderr(f"ok: {models} of {trials}, about {format_duration(checked['seconds'])}")
        for cohort in checked["cohorts"]:
            how = {"stack": "in stacks", "alone": f"one by one, engine {cohort['engine']}", "exact": "solved exactly"}
            size = f", {cohort['n_parameters']} parameters each" if cohort["n_parameters"] else ""
            print_stderr(f"  {format_count(cohort['n_models'], 'model')} {how[cohort['how']]}{size}")
        if n_later := checked["n_later_trials"]:
            later = format_count(n_later * loaded.sweep.n_trainings, "model")
            print_stderr(f"  {later} of {format_count(n_later, 'trial')} that depend on the results of those before")
    print_stdout(loaded.to_yaml().rstrip("\n"))
