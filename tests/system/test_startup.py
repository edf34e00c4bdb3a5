"""What a command imports, and that the work-arounds which keep the rest away change nothing and know when to stop."""

import gc
import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pyarrow as pa
import pytest

from linreg.system.memory import arrow_without_pool
from linreg.system.startup import without_collector
from tests.conftest import write_spec

COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
PICTURES = {"matplotlib", "PIL"}
TABLES = {"pyarrow", "pandas"}

EVERYTHING = """\
import json, sys
from linreg.__main__ import main
code = main()
print(json.dumps([code, list(sys.modules)]), file=open("imported.json", "w"))
"""

# Trains with every optimizer that torch has for dense gradients and a step of one evaluation.
TRAIN_WITH_ALL = """\
import json, sys
import torch
from torch import nn, optim

def train_with_all():
    found = {}
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam", "RAdam", "Rprop"):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        optimizer = getattr(optim, name)(model.parameters(), lr=0.01)
        scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=2)
        x, y = torch.randn(20, 3), torch.randn(20, 1)
        for _ in range(5):
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        assert torch.is_grad_enabled()
        optimizer.load_state_dict(optimizer.state_dict())
        found[name] = [loss.item(), *(value.item() for tensor in model.parameters() for value in tensor.flatten())]
    return found

"""


def run(code, *arguments):
    command = [sys.executable, "-c", dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(*arguments, code=0):
    """The modules that one command imports."""
    run(EVERYTHING, *arguments)
    met, modules = json.loads(Path("imported.json").read_text())
    assert met == code
    return set(modules)


@pytest.mark.parametrize(
    "command",
    [
        *["--version", "--help", "train --help", "list", "schema", "runs"],
        *["train wrong.yaml", "check wrong.yaml", "predict --inputs 0.2"],
    ],
)
def test_commands_without_a_model_do_not_import_torch(command):
    Path("wrong.yaml").write_text("name: wrong\nmodel: {name: liner}\n")
    code = 2 if "wrong" in command else 4 if "predict" in command else 0
    modules = imported_by(*command.split(), code=code)
    assert modules & ({"torch", "numpy", "tensorboard", "scipy"} | COMPILER | PICTURES | TABLES) == set()
    if command in ("--version", "--help"):  # of a command's own options Typer makes pydantic's checks
        assert modules & {"pydantic", "yaml", "rich"} == set()


def test_train_and_predict_do_not_import_the_compiler_or_unused_writers():
    spec = write_spec(writer={"graph": True, "hparams": True, "plots": False})
    needless = COMPILER | PICTURES | TABLES | {"scipy", "torch.onnx", "rich"}
    for changes in ([], ["optimizer.name=adam", "scheduler={name: one_cycle, max_lr: 0.1}", "clip_grad_norm=1"]):
        trained = imported_by("train", spec, *changes)
        assert "torch.utils.tensorboard" in trained
        assert trained & needless == set()
    assert imported_by("predict", "--inputs", "0.2") & (needless | {"tensorboard", "torch.utils.tensorboard"}) == set()


def test_a_picture_needs_no_pyplot():
    modules = imported_by("train", write_spec(writer__plots=True))
    assert "matplotlib" in modules
    assert modules & (COMPILER | {"matplotlib.pyplot", "tkinter"}) == set()


def test_without_the_compiler_every_optimizer_does_the_same_to_the_last_bit():
    say = "print(json.dumps([train_with_all(), 'torch._dynamo' in sys.modules]))"
    own, imported = json.loads(run(TRAIN_WITH_ALL + say))
    assert imported
    spared, imported = json.loads(
        run(TRAIN_WITH_ALL + f"from linreg.system.startup import skip_compiler_import\n\nskip_compiler_import()\n{say}")
    )
    assert not imported
    assert spared == own


def test_once_the_compiler_is_imported_torch_has_its_own_way():
    run("""
        import torch
        from torch import nn, optim
        from linreg.system.startup import skip_compiler_import

        skip_compiler_import()
        model = nn.Linear(2, 1)
        before = optim.SGD(model.parameters(), lr=0.1)
        cached = optim.Optimizer.add_param_group.__wrapped__.__dynamo_disable
        assert cached.__module__ == "linreg.system.startup"

        import torch._dynamo

        after = optim.SGD(model.parameters(), lr=0.1)
        cached = optim.Optimizer.add_param_group.__wrapped__.__dynamo_disable
        assert cached.__module__ != "linreg.system.startup"

        marks = []
        torch._dynamo.graph_break = lambda: marks.append(1)
        before.step()
        after.step()
        assert len(marks) == 4  # torch's own step marks where it switches gradients off, and on again
    """)


def test_compiled_functions_work_with_optimizers_made_before_and_after():
    run("""
        import torch
        from torch import nn, optim
        from linreg.system.startup import skip_compiler_import

        def losses(*, compiled, compile_first):
            torch.manual_seed(0)
            model = nn.Linear(2, 1)
            x, y = torch.randn(8, 2), torch.randn(8, 1)
            if not compile_first:
                optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            if compiled:
                model.compile(backend="eager")
            if compile_first:
                optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
            found = []
            for _ in range(4):
                loss = ((model(x) - y) ** 2).mean()
                loss.backward()
                step()
                optimizer.zero_grad()
                found.append(loss.item())
            return found

        skip_compiler_import()
        eager = losses(compiled=False, compile_first=False)
        assert losses(compiled=True, compile_first=False) == eager
        assert losses(compiled=True, compile_first=True) == eager
    """)


def test_a_plugin_may_compile_its_model(linreg):
    Path("p.py").write_text(
        "from linreg import MODELS\n\n@MODELS.register('compiled')\ndef compiled(n_features, n_targets):\n"
        "    from torch import nn\n    model = nn.Sequential(nn.Linear(n_features, n_targets))\n"
        "    model.compile(backend='eager')\n    return model\n"
    )
    modules = imported_by("train", write_spec(), "model={name: compiled}", "--plugin", "p.py")
    assert "torch._dynamo" in modules
    plain = imported_by("train", write_spec(name="plain"))
    assert "torch._dynamo" not in plain
    losses = [Path(f"runs/{name}_001/metrics.jsonl").read_text().splitlines() for name in ("small", "plain")]
    assert [json.loads(a)["loss"] for a in losses[0]] == [json.loads(b)["loss"] for b in losses[1]]


def test_with_another_torch_the_work_around_does_nothing_and_all_works():
    run("""
        import inspect, sys
        import torch
        from torch import nn, optim
        from linreg.system.startup import skip_compiler_import

        def otherwise(function, old, new):
            "Write a function of torch otherwise."
            source = inspect.getsource(function).replace("@overload", "")
            assert old in source
            namespace = dict(vars(inspect.getmodule(function)))
            exec(source.replace(old, new), namespace)
            return namespace[function.__name__.replace(old, new)]

        disable = torch._compile._disable_dynamo
        use_grad = sys.modules["torch.optim.optimizer"]._use_grad_for_differentiable
        undecorated = optim.Optimizer.add_param_group.__wrapped__
        other = {
            # by a decorator of another name; with a cache of another name; not by wrapping; doing more than was known
            (optim.Optimizer, "add_param_group"): otherwise(disable, "_disable_dynamo", "_no_dynamo")(undecorated),
            (optim.Optimizer, "zero_grad"):
                otherwise(disable, "__dynamo_disable", "__cached")(optim.Optimizer.zero_grad.__wrapped__),
            (optim.Optimizer, "state_dict"): optim.Optimizer.state_dict.__wrapped__,
            (optim.SGD, "step"): otherwise(use_grad, "prev_grad =", "self.more = prev_grad =")(optim.SGD.step.__wrapped__),
        }
        for (kind, name), method in other.items():
            setattr(kind, name, method)
        skip_compiler_import()
        for (kind, name), method in other.items():
            assert vars(kind)[name] is method
            assert not hasattr(getattr(method, "__wrapped__", method), "__dynamo_disable")

        model = nn.Linear(1, 1)
        with torch.no_grad():
            model.weight.fill_(2.0)
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
        optimizer.zero_grad()
        assert optimizer.more is True
        assert model.weight.item() == 1.5
        assert model.weight.grad is None
        assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.5
        assert "torch._dynamo" in sys.modules
    """)


def test_the_collector_is_off_while_importing_and_restored_after():
    with pytest.raises(ImportError), without_collector():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_arrow_allocates_from_the_system_only_within_the_block():
    pool = pa.default_memory_pool().backend_name
    with pytest.raises(ZeroDivisionError), arrow_without_pool():
        assert pa.default_memory_pool().backend_name == "system"
        1 / 0  # noqa: B018  # as any error within
    assert pa.default_memory_pool().backend_name == pool != "system"


def test_two_blocks_that_are_left_in_the_order_they_were_entered_restore_the_pool():
    pool = pa.default_memory_pool().backend_name
    first, second = arrow_without_pool(), arrow_without_pool()  # as two threads may hold them
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert pa.default_memory_pool().backend_name == pool != "system"
