"""Fine-tuning of checkpoints on files, and the fine-tuned model in use."""

from ffnlab.lazy import attach

_NAMES = {
    "Config": "config",
    "FinetunedModel": "finetuned_model",
    "Result": "runner",
    "run": "runner",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
