"""Parameter-efficient fine-tuning by transformers and peft; needs both and torch."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file

from benchmarks.protocol import Work
from benchmarks.recipe import autocast

warnings.simplefilter("ignore", FutureWarning)
transformers.utils.logging.disable_progress_bar()
_HEAD = r"(.*\.)?(pooler|classifier)\..*"
# The parameters of BERT that train beside the head, where peft has no such method.
_PATTERNS = {
    "full": ".*",
    "bitfit": r".*\.bias",
    "attention": r".*\.attention\.(self\.\w+|output\.dense)\.\w+",
    "ffn": r".*\.layer\.\d+\.(intermediate|output)\.dense\.\w+",
    "top": r".*\.layer\.{last}\..*",
    "head": _HEAD,
}


class Prefixed(torch.nn.Module):
    """A BERT with trained keys and values before those of the text.

    peft refuses a BERT of transformers 5.24 for prefix tuning, so that this is its
    `get_prompt` with transformers' cache.

    Args:
      model: A classifier of transformers.
      adapter: Directory of a prefix of peft.
    """

    def __init__(self, model: Any, adapter: Path):
        super().__init__()
        self.model, config = model.requires_grad_(False), model.config
        rows = load_file(adapter / peft.utils.SAFETENSORS_WEIGHTS_NAME)
        self.prefix = torch.nn.Parameter(rows["prompt_embeddings"])  # [P, 2 L D]
        self.shape = (2 * config.num_hidden_layers, config.num_attention_heads)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
    ) -> Any:
        """Returns the outputs of the classifier with its loss."""
        layers, heads = self.shape
        batch, tokens = len(input_ids), len(self.prefix)
        pairs = self.prefix.view(tokens, layers, heads, -1).permute(1, 2, 0, 3)
        pairs = pairs[:, None].expand(-1, batch, -1, -1, -1)  # [2 L, B, heads, P, h]
        cache = transformers.DynamicCache()
        for layer in range(layers // 2):
            cache.update(pairs[2 * layer], pairs[2 * layer + 1], layer)
        before = attention_mask.new_ones(batch, tokens)
        mask = torch.cat([before, attention_mask], dim=1)
        return self.model(input_ids, mask, labels=labels, past_key_values=cache)


def load(method: str, checkpoint: Path, adapter: Path | None) -> Any:
    """Returns a classifier of which what a method trains has gradients.

    Args:
      method: Name of the method.
      checkpoint: Directory of a BERT with a classification head.
      adapter: Directory of an adapter in the layout of peft, or None.

    Returns:
      The model, without dropout; None if there is none for the method.
    """
    if adapter is None and method not in _PATTERNS:
        return None
    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(checkpoint, num_labels=_classes(checkpoint), **rates)
    if adapter is None:
        last = str(model.config.num_hidden_layers - 1)
        pattern = _PATTERNS[method].replace("{last}", last)
        for name, parameter in model.named_parameters():
            trains = re.fullmatch(f"{pattern}|{_HEAD}", name)
            parameter.requires_grad_(trains is not None)
    elif method == "prefix":
        model = Prefixed(model, adapter)
        for name, parameter in model.named_parameters():
            if re.fullmatch(_HEAD, name):
                parameter.requires_grad_(True)
    else:
        model = peft.PeftModel.from_pretrained(model, adapter, is_trainable=True)
    return model.train()


def _classes(checkpoint: Path) -> int:
    """Returns the number of classes of the head of a checkpoint."""
    return len(load_file(checkpoint / "model.safetensors")["classifier.bias"])


def work(
    model: Any, tokens: np.ndarray, labels: np.ndarray, steps: int, rate: float,
    clip: float, dtype: str,
) -> Work:  # fmt: skip
    """Returns steps of Adam on one batch, with clipped gradients.

    Args:
      model: From `load`.
      tokens: Token ids, padded with −1, int `[B, T]`.
      labels: Labels, int `[B]`.
      steps: Number of steps.
      rate: The learning rate.
      clip: Largest norm of the gradient.
      dtype: `float32`, or `bfloat16` to compute by autocast.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate, fused=True)
    inputs = {
        "input_ids": torch.as_tensor(np.maximum(tokens, 0).astype(np.int64)),
        "attention_mask": torch.as_tensor((tokens >= 0).astype(np.int64)),
        "labels": torch.as_tensor(labels.astype(np.int64)),
    }

    def run(_: None) -> np.ndarray:
        losses = []
        for _ in range(steps):
            with autocast(dtype):
                loss = model(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    return Work(run)


def threaded(work: Work, threads: int) -> Work:
    """Returns the same work with a number of threads."""
    return Work(work.run, lambda: torch.set_num_threads(threads))
