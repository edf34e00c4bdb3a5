"""What one does with an experiment: build, check, train, resume, predict, evaluate."""

from linreg.experiment.building import Experiment, build
from linreg.experiment.checking import check
from linreg.experiment.evaluating import Evaluation, evaluate
from linreg.experiment.predicting import Prediction, predict
from linreg.experiment.predicting_table import predict_table
from linreg.experiment.result import Result
from linreg.experiment.resuming import resume, train_or_resume
from linreg.experiment.session import train

__all__ = [
    "Evaluation",
    "Experiment",
    "Prediction",
    "Result",
    "build",
    "check",
    "evaluate",
    "predict",
    "predict_table",
    "resume",
    "train",
    "train_or_resume",
]
