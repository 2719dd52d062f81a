# ruff: noqa: I001  (in the order of the pipeline)

# one line each, for notebooks
from .notebook import measure as measure
from .notebook import compare as compare
from .notebook import regret as regret
from .notebook import progress as progress

# the nouns
from .types import (
    Branch as Branch, Completion as Completion, Engine as Engine, Episode as Episode, Grader as Grader,
    HeadwayError as HeadwayError, MetaProver as MetaProver, Problem as Problem, Prompt as Prompt,
    SamplingParams as SamplingParams, Trace as Trace,
)  # fmt: skip

# problems, models, traces
from .problems import load_problems as load_problems
from .problems.graders import load_grader as load_grader
from .notebook import load_model as load_model
from .engines.scripted import ScriptedEngine as ScriptedEngine
from .text.tags import find_think_tags as find_think_tags
from .text.prompts import meta_prover as meta_prover
from .procedures.sample import Sampling as Sampling, sample as sample

# episodes, values, regret
from .core.segment import Cutting as Cutting, cut as cut, to_tokens as to_tokens
from .procedures.prove import Prover as Prover
from .core.tally import ValueCurve as ValueCurve
from .core.regret import budget_curve as budget_curve
from .core.votes import maj_at_k as maj_at_k
from .core.stats import mean as mean, paired_difference as paired_difference, pass_at_k as pass_at_k

# credit and training
from .credit import SCHEMES as SCHEMES, Group as Group, token_advantages as token_advantages
from .training import MRTConfig as MRTConfig, MRTTrainer as MRTTrainer, dataset_of as dataset_of

__version__: str
