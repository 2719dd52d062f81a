"""Training: the one package that imports trl."""

from headway.training.config import MRTConfig
from headway.training.outcome import outcome_reward
from headway.training.recipe import TrainArguments, dataset_of, main, train
from headway.training.trainer import MRTTrainer

__all__ = ["MRTConfig", "MRTTrainer", "TrainArguments", "dataset_of", "main", "outcome_reward", "train"]
