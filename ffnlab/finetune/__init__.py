"""Fine-tuning of checkpoints on files, and predictions of fine-tuned models."""

from ffnlab.lazy import attach

_NAMES = {
    "Answer": "outputs",
    "Config": "config",
    "Entity": "outputs",
    "FinetunedModel": "finetuned_model",
    "LabelSet": "target_outputs",
    "Pipeline": "predictor",
    "PredictConfig": "predict_files",
    "PredictOptions": "predict_options",
    "Prediction": "outputs",
    "Result": "runner",
    "Score": "target_outputs",
    "Usage": "usage",
    "open_source": "inputs",
    "pipeline": "predictor",
    "predict": "predict_files",
    "read_finetuned": "finetuned_model",
    "run": "runner",
    "write_predictions": "outputs",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
