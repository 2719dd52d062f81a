"""Training: the one package that imports trl."""

from headway.trainer.config import MRTConfig
from headway.trainer.grpo import MRTTrainer
from headway.trainer.outcome import outcome_reward
from headway.trainer.recipe import TrainArguments, dataset_of, main, train

__all__ = ["MRTConfig", "MRTTrainer", "TrainArguments", "dataset_of", "main", "outcome_reward", "train"]
