"""Fine-tuning by torch on a GPU, for `benchmarks.accelerator`; needs transformers."""

from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks.adapt import CLASSES, CLIP, RATE, Setup
from benchmarks.protocol import Work


def has_gpu() -> bool:
    """Returns whether torch finds a GPU."""
    return torch.cuda.is_available()


def fine_tuning(
    checkpoint: Path, setup: Setup, steps: int, device: str = "cuda"
) -> Work:
    """Returns steps of Adam on one batch, as transformers recommends them on a GPU.

    The model is compiled and computes in bfloat16 by autocast, the optimizer is fused,
    and gradients are clipped.

    Args:
      checkpoint: Directory of a BERT with a classification head.
      setup: The texts and labels.
      steps: Number of steps.
      device: What torch calls the device.
    """
    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(checkpoint, num_labels=CLASSES, **rates)
    model = model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    compiled, tokens = torch.compile(model, dynamic=False), setup.tokens
    arrays = {
        "input_ids": np.maximum(tokens, 0),
        "attention_mask": tokens >= 0,
        "labels": setup.labels,
    }
    inputs = {
        name: torch.as_tensor(array.astype(np.int64), device=device)
        for name, array in arrays.items()
    }

    def run(_: None) -> np.ndarray:
        losses = []
        for _ in range(steps):
            with torch.autocast(device, torch.bfloat16):
                loss = compiled(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        return torch.stack(losses).float().cpu().numpy()  # waits for the device

    return Work(run)
