"""The recipe of transformers for classification and tagging; needs torch.

It follows run_ner and run_glue: each batch is padded to its longest text, AdamW does
not decay biases and norms, the learning rate falls linearly to 0, and gradients are
clipped to norm 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.protocol import Work
from ffnlab.data.dataset import IGNORE

_NO_DECAY = ("bias", "LayerNorm.weight")


class Recipe:
    """A model of transformers with its data.

    Args:
      checkpoint: Directory of the checkpoint.
      task: `tag` or `classify`.
      classes: Number of labels.
      texts: The texts; for `tag` the words of each sentence.
      labels: The label of each text as a number; for `tag` one per word.
      batch: Texts per step.
      length: Largest number of tokens of a text.
      dtype: `float32`, or `bfloat16` to compute by autocast.
    """

    def __init__(
        self,
        checkpoint: str,
        task: str,
        classes: int,
        texts: Sequence[Any],
        labels: Sequence[Any],
        batch: int,
        length: int,
        dtype: str = "float32",
    ):
        self.checkpoint, self.task, self.classes = checkpoint, task, classes
        self.dtype = dtype
        self.batch, self.length = batch, length
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        self.examples = [self.encode(*each) for each in zip(texts, labels, strict=True)]

    def encode(self, text: Any, label: Any) -> tuple[list[int], Any]:
        """Returns the tokens of a text and its label; for `tag` one label per token."""
        tagging = self.task == "tag"
        tokens = self.tokenizer(
            text, is_split_into_words=tagging, truncation=True, max_length=self.length
        )
        if not tagging:
            return tokens["input_ids"], label
        words, targets = tokens.word_ids(), []
        for place, word in enumerate(words):
            first = word is not None and (place == 0 or words[place - 1] != word)
            targets.append(label[word] if first else IGNORE)
        return tokens["input_ids"], targets

    def collate(self, examples: Sequence[tuple[list[int], Any]]) -> dict[str, Any]:
        """Returns a batch padded to its longest text."""
        longest = max(len(tokens) for tokens, _ in examples)
        ids = np.full((len(examples), longest), self.tokenizer.pad_token_id)
        tags = np.full(ids.shape, IGNORE)
        for row, (tokens, label) in enumerate(examples):
            ids[row, : len(tokens)] = tokens
            if self.task == "tag":
                tags[row, : len(tokens)] = label
        labels = tags if self.task == "tag" else [label for _, label in examples]
        mask = ids != self.tokenizer.pad_token_id
        return {
            "input_ids": torch.as_tensor(ids),
            "attention_mask": torch.as_tensor(mask),
            "labels": torch.as_tensor(np.asarray(labels)),
        }

    def model(self, seed: int) -> Any:
        """Returns the model of the checkpoint with a new head."""
        transformers.set_seed(seed)
        kind = {
            "tag": transformers.AutoModelForTokenClassification,
            "classify": transformers.AutoModelForSequenceClassification,
        }[self.task]
        return kind.from_pretrained(self.checkpoint, num_labels=self.classes)

    def batches(self, seed: int | None) -> list[list[int]]:
        """Returns the examples of each step of an epoch."""
        order = np.arange(len(self.examples))
        if seed is not None:
            order = np.random.default_rng(seed).permutation(order)
        return [order[i : i + self.batch] for i in range(0, len(order), self.batch)]

    def train(self, seed: int, epochs: int, rate: float) -> Any:
        """Returns a model trained for `epochs` epochs."""
        model = self.model(seed)
        steps = epochs * len(self.batches(None))
        step = self.step(model, rate, steps)
        for epoch in range(epochs):
            for rows in self.batches(1000 * seed + epoch):
                step(rows)
        return model

    def step(self, model: Any, rate: float, steps: int) -> Any:
        """Returns a function that takes a step on the examples it is given."""
        named = list(model.named_parameters())
        no_decay = [p for name, p in named if name.endswith(_NO_DECAY)]
        decay = [p for name, p in named if not name.endswith(_NO_DECAY)]
        groups = [{"params": decay, "weight_decay": 0.01},
                  {"params": no_decay, "weight_decay": 0.0}]  # fmt: skip
        optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, steps)
        model.train()

        def step(rows: Sequence[int]) -> None:
            batch = self.collate([self.examples[i] for i in rows])
            with autocast(self.dtype):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

        return step

    def predict(self, model: Any, texts: Sequence[Any]) -> list[Any]:
        """Returns the label of each text; for `tag` one label per word."""
        model.eval()
        predictions = []
        blank = [[0] * len(text) if self.task == "tag" else 0 for text in texts]
        for begin in range(0, len(texts), 32):
            part = slice(begin, begin + 32)
            pairs = zip(texts[part], blank[part], strict=True)
            examples = [self.encode(*each) for each in pairs]
            with torch.no_grad(), autocast(self.dtype):
                batch = self.collate(examples)
                guesses = model(**batch).logits.argmax(-1).numpy()
            if self.task == "classify":
                predictions += guesses.tolist()
                continue
            for words, row, (_, targets) in zip(
                texts[part], guesses, examples, strict=True
            ):
                pairs = zip(row, targets, strict=False)
                labels = [int(k) for k, target in pairs if target != IGNORE]
                predictions.append(labels + [0] * (len(words) - len(labels)))
        return predictions


def autocast(dtype: str) -> Any:
    """Returns the context in which torch computes in a dtype."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")


def epoch(recipe: Recipe, threads: int, rate: float) -> Work:
    """Returns an epoch of training over all examples in order."""
    torch.set_num_threads(threads)
    step = recipe.step(recipe.model(0), rate, 10_000)

    def run(_: None) -> None:
        for rows in recipe.batches(None):
            step(rows)

    return Work(run)
