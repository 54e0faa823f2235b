"""Training: the step, the loop, objectives, optimizers and checkpoints."""

from ffnlab.lazy import attach

_NAMES = {
    "Checkpoints": "checkpoint",
    "Evaluator": "evaluation",
    "Fit": "loop",
    "Frozen": "learner",
    "Hooks": "loop",
    "Learner": "learner",
    "OBJECTIVES": "objectives",
    "Parts": "learner",
    "Plan": "record",
    "Record": "record",
    "fit": "loop",
    "make_optimizer": "optimizers:make",
    "make_step": "train_step",
    "schedule": "optimizers",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
