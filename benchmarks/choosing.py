"""Choosing a model: penalties beside scikit-learn's RidgeCV and LassoCV, sweeps beside GridSearchCV and Optuna.

    python -m benchmarks.choosing [RUNS]

One thread. Penalties get the same arrays, folds and numbers of strengths; sweeps are whole processes with the same
learning rates, rows, epochs and mini-batches, and one division into training and validation.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.combinations import one_thread
from benchmarks.rows import Row, compare, in_turn, table, time_process, timed
from linreg.experiment.data import read_rows
from linreg.experiment.solving import solve_exactly
from linreg.spec.schema import ExperimentSpec, spec_from_dict

N_ROWS, N_FEATURES = 100_000, 20
N_TRIALS, EPOCHS = 64, 20

SWEEP = """\
name: search
epochs: 20
data:
  source: {name: npy, path: table.npy, target: x11}
  batch_size: 32
model: MODEL
optimizer: OPTIMIZER
baseline: false
sweep: {parameters: {optimizer.lr: {min: 1e-4, max: 1e-2, log: true}}, trials: 64}
"""

GRID = """
import numpy as np
from sklearn.linear_model import SGDRegressor
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.neural_network import MLPRegressor
table = np.load("table.npy").astype(np.float32)
x, y = table[:, :-1], table[:, -1]
rates = np.geomspace(1e-4, 1e-2, 64)
model, key = MODEL
division = ShuffleSplit(1, test_size=0.2, random_state=13)
search = GridSearchCV(model, {key: rates}, cv=division, scoring="neg_mean_squared_error")
print(search.fit(x, y).best_params_)
"""

OPTUNA = """
import sys
import numpy as np, optuna, torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split
from benchmarks.textbook import make_train_step_fn, make_val_step_fn, mini_batch
optuna.logging.set_verbosity(optuna.logging.WARNING)
torch.set_num_threads(1)
table = torch.as_tensor(np.load("table.npy")).float()
dataset = TensorDataset(table[:, :-1], table[:, -1:])
torch.manual_seed(13)
n_train = int(len(dataset) * 0.8)
train_data, val_data = random_split(dataset, [n_train, len(dataset) - n_train])

def objective(trial):
    lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    torch.manual_seed(42)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = optim.Adam(model.parameters(), lr=lr)
    loss_fn = nn.MSELoss(reduction="mean")
    train_loader = DataLoader(train_data, batch_size=32, shuffle=True)
    val_loader = DataLoader(val_data, batch_size=32)
    train_step_fn, val_step_fn = make_train_step_fn(model, loss_fn, optimizer), make_val_step_fn(model, loss_fn)
    for epoch in range(20):
        mini_batch("cpu", train_loader, train_step_fn)
        with torch.no_grad():
            val_loss = mini_batch("cpu", val_loader, val_step_fn)
    return val_loss

study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
study.optimize(objective, n_trials=64)
print(study.best_params)
"""


def measure(runs: int, n_rows: int = N_ROWS, n_swept: int = 2_000) -> list[Row]:
    """Measure penalties and sweeps. runs: the number of measurements for each median; n_rows, n_swept: rows of the
    tables."""
    with TemporaryDirectory() as name, one_thread():
        folder = Path(name)
        return [*_penalties(folder, runs, n_rows), *_searches(folder, runs, n_swept)]


def _spec(folder: Path, **changes: object) -> ExperimentSpec:
    source = {"name": "npy", "path": str(folder / "table.npy"), "target": f"x{N_FEATURES + 1}"}
    data = {"source": source, "split": {"train_ratio": 1.0}}
    plain = {"name": "penalty", "solver": "exact", "data": data, "model": {"name": "linear"}}
    return spec_from_dict({**plain, **changes}, "benchmark")


def _penalties(folder: Path, runs: int, n_rows: int) -> list[Row]:
    """Compare five folds of 100 strengths, from rows in memory to the model, with one exact solution and with
    scikit-learn, which is timed once: it takes long."""
    from sklearn.linear_model import LassoCV, RidgeCV

    random = np.random.default_rng(0)
    x = random.normal(size=(n_rows, N_FEATURES))
    y = x @ random.normal(0, 0.1, N_FEATURES) + random.normal(size=n_rows)
    np.save(folder / "table.npy", np.c_[x, y])
    specs = {
        "exact": _spec(folder),
        **{name: _spec(folder, penalty={"name": name}) for name in ("ridge", "lasso")},
    }
    rows = read_rows(specs["exact"])
    found = in_turn({key: timed(lambda spec=spec: solve_exactly(spec, rows=rows)) for key, spec in specs.items()}, runs)
    ridge = timed(lambda: RidgeCV(alphas=np.geomspace(1e-4, 1e6, 100), cv=5).fit(x, y))()
    lasso = in_turn({"lasso": timed(lambda: LassoCV(cv=5).fit(x, y))}, min(runs, 3))["lasso"]
    size = f"{n_rows:,} x {N_FEATURES}, 5 folds x 100 strengths"
    return [
        compare(f"ridge, {size}", "one exact solution", found["ridge"], found["exact"], target=1.3),
        compare(f"lasso, {size}", "one exact solution", found["lasso"], found["exact"]),
        compare(f"ridge, {size}", "scikit-learn RidgeCV(cv=5)", found["ridge"], ridge, target=10.0, better="higher"),
        compare(f"lasso, {size}", "scikit-learn LassoCV(cv=5)", found["lasso"], lasso, target=2.0, better="higher"),
    ]


def _searches(folder: Path, runs: int, n_rows: int) -> list[Row]:
    """Compare `linreg sweep` with searches by other tools."""
    random = np.random.default_rng(0)
    x = random.uniform(size=(n_rows, 10))
    y = np.sin(3 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * random.normal(size=n_rows)
    np.save(folder / "table.npy", np.c_[x, y])
    kinds = {
        "linear": ("{name: linear}", "{name: sgd, lr: 0.01}"),
        "mlp": ("{name: mlp, hidden: [32]}", "{name: adam, lr: 0.01}"),
    }
    for kind, (model, optimizer) in kinds.items():
        text = SWEEP.replace("MODEL", model).replace("OPTIMIZER", optimizer)
        (folder / f"{kind}.yaml").write_text(text)
    theirs = {
        "linear": 'SGDRegressor(penalty=None, learning_rate="constant", max_iter=20, tol=None), "eta0"',
        "mlp": "MLPRegressor(hidden_layer_sizes=(32,), alpha=0, batch_size=32, max_iter=20, n_iter_no_change=20), "
        '"learning_rate_init"',
    }

    def process(*command: str) -> float:
        return time_process([sys.executable, *command], cwd=folder, env={"OMP_NUM_THREADS": "1"})

    rows, name = [], ""
    for kind in kinds:
        found = in_turn(
            {
                "ours": lambda kind=kind: process("-m", "linreg", "sweep", f"{kind}.yaml", "--quiet"),
                "theirs": lambda kind=kind: process("-c", GRID.replace("MODEL", theirs[kind], 1)),
            },
            runs,
        )
        model = "MLPRegressor, batch 32" if kind == "mlp" else "SGDRegressor, one row a step"
        name = f"linreg sweep, {N_TRIALS} x {EPOCHS} epochs of {n_rows:,} x 10, {kind}, batch 32"
        other = f"scikit-learn GridSearchCV of {model}"
        rows.append(compare(name, other, found["ours"], found["theirs"], better="higher"))
    optuna, note = None, "not installed: optuna"
    if find_spec("optuna"):
        optuna, note = process("-c", OPTUNA), ""
    other = "Optuna, random trials, with the textbook's loop"
    return [*rows, compare(name, other, found["ours"], optuna, better="higher", note=note)]


if __name__ == "__main__":
    print(table({"choosing": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)}), end="")
