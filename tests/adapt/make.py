"""Makes adapters with the peft library, and what peft computes with ours.

    pip install -e '.[pretrained,peers]' peft
    python -m tests.adapt.make [NAME ...]

Each directory of tests/adapt/peft is an adapter that peft saved of a checkpoint of
tests/checkpoints, with random values. expected.npz has the logits of these under their
names, and those of peft with adapters that we wrote under `ours/` and their names. The
tests need neither torch nor peft.
"""

import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import peft
import torch
import transformers

from tests.adapt.small import HERE, OURS, PLAIN, PURPOSES, family_of, write_ours

OUT = Path(__file__).parent / "peft"
TASKS = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    None: "CAUSAL_LM",
}
CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "gpt2": "GPT2LMHead",
}
PATTERNS = {
    "rank_pattern": {"layer.1.attention.self.query": 2},
    "alpha_pattern": {"layer.1.attention.self.query": 7},
}
LORA = {"r": 3, "lora_alpha": 5}
ADALORA = {"init_r": 3, "target_r": 1, "lora_alpha": 5, "total_step": 8, "tinit": 1,
           "tfinal": 2, "deltaT": 1}  # fmt: skip
THEIRS = {
    "bert-lora": peft.LoraConfig(
        **LORA,
        **PATTERNS,
        use_rslora=True,
        target_modules=["query", "value", "intermediate.dense"],
        modules_to_save=["pooler"],
    ),
    "bert-dora": peft.LoraConfig(**LORA, use_dora=True),
    "bert-adalora": peft.AdaLoraConfig(**ADALORA),
    "bert-ia3": peft.IA3Config(),
    "roberta-lora": peft.LoraConfig(**LORA, layers_to_transform=[1]),
    "xlm-roberta-lora": peft.LoraConfig(**LORA, target_modules=["key", "dense"]),
    "electra-lora": peft.LoraConfig(**LORA, target_modules=["query", "value"]),
    "distilbert-ia3": peft.IA3Config(
        target_modules=["k_lin", "v_lin", "lin2"], feedforward_modules=["lin2"]
    ),
    "distilbert-dora": peft.LoraConfig(
        **LORA, use_dora=True, target_modules=["q_lin", "out_lin", "lin1"]
    ),
    "gpt2-lora": peft.LoraConfig(**LORA, target_modules=["c_attn", "c_fc"]),
    "gpt2-dora": peft.LoraConfig(**LORA, use_dora=True),
    "gpt2-adalora": peft.AdaLoraConfig(**ADALORA),
    "gpt2-ia3": peft.IA3Config(),
    "gpt2-prefix": peft.PrefixTuningConfig(num_virtual_tokens=3),
}


def load_model(family):
    """Returns the task model of transformers of a checkpoint."""
    purpose, name = PURPOSES[family], CLASSES[family]
    kind = getattr(transformers, f"{name}{'For' + purpose if purpose else 'Model'}")
    options = {"num_labels": 3} if purpose else {}
    model = kind.from_pretrained(HERE / family, **options).eval()
    model.set_attn_implementation("eager")
    return model


def logits(model):
    """Returns the logits of the two texts, `[2, ...]`."""
    inputs = {
        "input_ids": torch.tensor(PLAIN["tokens"]),
        "attention_mask": torch.tensor(PLAIN["mask"].astype(int)),
    }
    with torch.no_grad():
        return model.eval()(**inputs).logits.numpy()


def randomize(model):
    """Draws all arrays that train, so that each matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "ranknum" not in name:
                noise = torch.empty_like(parameter).normal_(0, 0.3, generator=generator)
                parameter.add_(noise)


def prune(model):
    """Trains AdaLoRA on noise, until it has pruned to its budget."""
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1)
    for step in range(1, 9):
        inputs = {"input_ids": torch.tensor(PLAIN["tokens"])}
        loss = model(**inputs).logits.sin().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)


def make_theirs(name, expected):
    """Makes an adapter with peft, and stores what it computes."""
    family = family_of(name)
    config = THEIRS[name]
    config.task_type = TASKS[PURPOSES[family]]
    model = peft.get_peft_model(load_model(family), config)
    config.base_model_name_or_path = f"tests/checkpoints/{family}"  # on any machine
    randomize(model)
    if "adalora" in name:
        prune(model)
    expected[name] = logits(model)
    model.save_pretrained(OUT / name)
    (OUT / name / "README.md").unlink(missing_ok=True)


def check_ours(name, expected):
    """Stores what peft computes with an adapter that we wrote."""
    family = family_of(name)
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent, name)
        write_ours(directory, name)
        model = peft.PeftModel.from_pretrained(load_model(family), directory)
        expected[f"ours/{name}"] = logits(model)


def main():
    """Makes all adapters and expected outputs."""
    warnings.simplefilter("ignore")
    names, expected = sys.argv[1:] or [*THEIRS, *OURS], {}
    if sys.argv[1:]:
        with np.load(OUT / "expected.npz") as file:
            expected = dict(file)
    for name in [name for name in THEIRS if name in names]:
        shutil.rmtree(OUT / name, ignore_errors=True)
        torch.manual_seed(0)
        make_theirs(name, expected)
        print(name)
    for name in [name for name in OURS if name in names]:
        check_ours(name, expected)
        print("ours:", name)
    np.savez_compressed(OUT / "expected.npz", **expected)


if __name__ == "__main__":
    main()
