"""Layouts of `transformers` checkpoints as data: names, shapes and configurations.

A `Row` maps the name of a module in a checkpoint to paths in our parameters. Loading
and saving use the same rows.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ffnlab.models.transformer_config import (
    DecoderConfig,
    EncoderConfig,
    TransformerConfig,
)


class Row(NamedTuple):
    """Name of a module in a checkpoint, and its path in our parameters.

    Attributes:
      name: Name of the module in the checkpoint; `{i}` stands for the layer.
      paths: Path in our parameters; several paths, separated by spaces, if the module
        is the concatenation of several of ours.
      kind: A key of `KINDS`.
    """

    name: str
    paths: str
    kind: str = "linear"


def _same(array: np.ndarray) -> np.ndarray:
    return array


# For each kind of module: the names of its arrays in a checkpoint and in our params,
# and the function that converts one into the other, in both directions.
KINDS: dict[str, list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]] = {
    "linear": [(".weight", "/kernel", np.transpose), (".bias", "/bias", _same)],
    "conv1d": [(".weight", "/kernel", _same), (".bias", "/bias", _same)],
    "norm": [(".weight", "/scale", _same), (".bias", "/bias", _same)],
    "embedding": [(".weight", "/embedding", _same)],
    "vector": [("", "", _same)],
}


class Entry(NamedTuple):
    """An array of a checkpoint.

    Attributes:
      name: Name of the array in the checkpoint.
      paths: Paths of the array or its parts in our parameters.
      transform: Function that converts between the two forms, in both directions.
    """

    name: str
    paths: tuple[str, ...]
    transform: Callable[[np.ndarray], np.ndarray]

    def read(self, array: np.ndarray) -> list[np.ndarray]:
        """Returns our arrays for an array of the checkpoint."""
        whole = self.transform(array)
        if len(self.paths) == 1:  # also a number
            return [whole]
        return np.split(whole, len(self.paths), axis=-1)

    def write(self, arrays: list[np.ndarray]) -> np.ndarray:
        """Returns the array of the checkpoint for our arrays."""
        whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
        return np.require(self.transform(whole), requirements="C")


_BERT = [
    Row("embeddings.word_embeddings", "embed/tokens", "embedding"),
    Row("embeddings.position_embeddings", "embed/positions", "embedding"),
    Row("embeddings.token_type_embeddings", "embed/types", "embedding"),
    Row("embeddings.LayerNorm", "embed/norm", "norm"),
    Row("encoder.layer.{i}.attention.self.query", "layer_{i}/attention/query"),
    Row("encoder.layer.{i}.attention.self.key", "layer_{i}/attention/key"),
    Row("encoder.layer.{i}.attention.self.value", "layer_{i}/attention/value"),
    Row("encoder.layer.{i}.attention.output.dense", "layer_{i}/attention/out"),
    Row(
        "encoder.layer.{i}.attention.output.LayerNorm",
        "layer_{i}/attention_norm",
        "norm",
    ),
    Row("encoder.layer.{i}.intermediate.dense", "layer_{i}/ffn/up"),
    Row("encoder.layer.{i}.output.dense", "layer_{i}/ffn/down"),
    Row("encoder.layer.{i}.output.LayerNorm", "layer_{i}/ffn_norm", "norm"),
    Row("pooler.dense", "pooler"),
]

_ELECTRA = [
    *(row for row in _BERT if row.paths != "pooler"),
    Row("embeddings_project", "embed/project"),
]

_DISTILBERT = [
    Row("embeddings.word_embeddings", "embed/tokens", "embedding"),
    Row("embeddings.position_embeddings", "embed/positions", "embedding"),
    Row("embeddings.LayerNorm", "embed/norm", "norm"),
    Row("transformer.layer.{i}.attention.q_lin", "layer_{i}/attention/query"),
    Row("transformer.layer.{i}.attention.k_lin", "layer_{i}/attention/key"),
    Row("transformer.layer.{i}.attention.v_lin", "layer_{i}/attention/value"),
    Row("transformer.layer.{i}.attention.out_lin", "layer_{i}/attention/out"),
    Row("transformer.layer.{i}.sa_layer_norm", "layer_{i}/attention_norm", "norm"),
    Row("transformer.layer.{i}.ffn.lin1", "layer_{i}/ffn/up"),
    Row("transformer.layer.{i}.ffn.lin2", "layer_{i}/ffn/down"),
    Row("transformer.layer.{i}.output_layer_norm", "layer_{i}/ffn_norm", "norm"),
]

_GPT2 = [
    Row("wte", "embed/tokens", "embedding"),
    Row("wpe", "embed/positions", "embedding"),
    Row("h.{i}.ln_1", "layer_{i}/attention_norm", "norm"),
    Row(
        "h.{i}.attn.c_attn",
        "layer_{i}/attention/query layer_{i}/attention/key layer_{i}/attention/value",
        "conv1d",
    ),
    Row("h.{i}.attn.c_proj", "layer_{i}/attention/out", "conv1d"),
    Row("h.{i}.ln_2", "layer_{i}/ffn_norm", "norm"),
    Row("h.{i}.mlp.c_fc", "layer_{i}/ffn/up", "conv1d"),
    Row("h.{i}.mlp.c_proj", "layer_{i}/ffn/down", "conv1d"),
    Row("ln_f", "norm", "norm"),
]

# Names of activations in config.json, and ours. Saving uses the first of several names.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class Family(NamedTuple):
    """A family of checkpoints.

    Attributes:
      prefix: Prefix of the names in `rows`, in models with a head.
      rows: Modules of every model.
      head: Modules of the language modelling head, with full names.
      ties: Names of arrays that are copies, and of their originals.
      ignored: Patterns of names of arrays that are not needed: buffers, and the heads
        of other tasks.
      fields: Fields of our configuration, and their keys in config.json.
      fixed: Values that keys of config.json must have, if they are present.
      config: Function that returns our configuration.
      architectures: Class names in `transformers` without and with the head.
      head_activation: Activation of the head whatever config.json says; None means
        that of the blocks.
      padded: Whether positions start after the id of the padding token.
      defaults: What config.json leaves out, where it is not our default.
    """

    prefix: str
    rows: list[Row]
    head: list[Row]
    ties: dict[str, str]
    ignored: tuple[str, ...]
    fields: dict[str, str]
    fixed: dict[str, Any]
    config: Callable[..., TransformerConfig]
    architectures: tuple[str, str]
    head_activation: str | None = None
    padded: bool = False
    defaults: dict[str, Any] = {}  # noqa: RUF012, a NamedTuple copies no default

    @property
    def native(self) -> bool:
        """Whether it is our own family: any configuration, arrays by their paths."""
        return not self.rows


_BERT_FIELDS = {
    "vocabulary": "vocab_size",
    "features": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "block": "hidden_act",
    "length": "max_position_embeddings",
    "types": "type_vocab_size",
    "epsilon": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
_BERT_FIXED = {"position_embedding_type": "absolute", "is_decoder": False}

# How a run computes, which is no part of a model that is saved.
_OF_RUNS = ("attention_implementation", "remat_policy")

FAMILIES: dict[str, Family] = {
    "bert": Family(
        "bert.",
        _BERT,
        [
            Row("cls.predictions.transform.dense", "head/dense"),
            Row("cls.predictions.transform.LayerNorm", "head/norm", "norm"),
            Row("cls.predictions.bias", "head/bias", "vector"),
        ],
        {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        },
        (r"embeddings\.position_ids", r"cls\.seq_relationship\..*", r"classifier\..*",
         r"qa_outputs\..*"),
        _BERT_FIELDS,
        _BERT_FIXED,
        EncoderConfig,
        ("BertModel", "BertForMaskedLM"),
    ),
    "roberta": Family(
        "roberta.",
        _BERT,
        [
            Row("lm_head.dense", "head/dense"),
            Row("lm_head.layer_norm", "head/norm", "norm"),
            Row("lm_head.bias", "head/bias", "vector"),
        ],
        {
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        },
        (r"embeddings\.position_ids", r"classifier\..*", r"qa_outputs\..*"),
        _BERT_FIELDS,
        _BERT_FIXED,
        EncoderConfig,
        ("RobertaModel", "RobertaForMaskedLM"),
        head_activation="gelu",
        padded=True,
    ),
    "distilbert": Family(
        "distilbert.",
        _DISTILBERT,
        [
            Row("vocab_transform", "head/dense"),
            Row("vocab_layer_norm", "head/norm", "norm"),
            Row("vocab_projector.bias", "head/bias", "vector"),
        ],
        {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
        (r"embeddings\.position_ids", r"(pre_)?classifier\..*", r"qa_outputs\..*"),
        {
            "vocabulary": "vocab_size",
            "features": "dim",
            "layers": "n_layers",
            "heads": "n_heads",
            "hidden": "hidden_dim",
            "block": "activation",
            "length": "max_position_embeddings",
            "dropout": "dropout",
            "attention_dropout": "attention_dropout",
        },
        {},
        lambda **fields: EncoderConfig(**{"types": 0, **fields}),
        ("DistilBertModel", "DistilBertForMaskedLM"),
    ),
    "gpt2": Family(
        "transformer.",
        _GPT2,
        [],
        {"lm_head.weight": "transformer.wte.weight"},
        (r"h\.\d+\.attn\.(masked_)?bias", r"score\..*"),
        {
            "vocabulary": "vocab_size",
            "features": "n_embd",
            "layers": "n_layer",
            "heads": "n_head",
            "hidden": "n_inner",
            "block": "activation_function",
            "length": "n_positions",
            "epsilon": "layer_norm_epsilon",
            "dropout": "resid_pdrop",
            "attention_dropout": "attn_pdrop",
        },
        {
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        DecoderConfig,
        ("GPT2Model", "GPT2LMHeadModel"),
    ),
    "electra": Family(
        "electra.",
        _ELECTRA,
        [
            Row("generator_predictions.dense", "head/dense"),
            Row("generator_predictions.LayerNorm", "head/norm", "norm"),
            Row("generator_lm_head.bias", "head/bias", "vector"),
        ],
        {"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
        (r"embeddings\.position_ids", r"discriminator_predictions\..*",
         r"classifier\..*", r"qa_outputs\..*"),
        {**_BERT_FIELDS, "embedding": "embedding_size"},
        _BERT_FIXED,
        EncoderConfig,
        ("ElectraModel", "ElectraForMaskedLM"),
        head_activation="gelu",
        defaults={"embedding": 128},
    ),
    "ffnlab": Family(
        "",
        [],
        [],
        {},
        (r"(head|pooler)/.*", r"classifier\..*", r"qa_outputs\..*"),
        {
            field.name: field.name
            for field in dataclasses.fields(TransformerConfig)
            if field.name not in _OF_RUNS
        },
        {},
        TransformerConfig,
        ("", ""),
    ),
}  # fmt: skip
_XLM_ROBERTA = FAMILIES["roberta"]._replace(
    architectures=("XLMRobertaModel", "XLMRobertaForMaskedLM")
)
# Our own family comes last: it can represent any model.
FAMILIES |= {"xlm-roberta": _XLM_ROBERTA, "ffnlab": FAMILIES.pop("ffnlab")}


def entries(family: Family, layers: int, head: bool) -> Iterator[Entry]:
    """Yields every array of a model, with the names that a model with a head uses.

    Args:
      family: A row of `FAMILIES`.
      layers: Number of layers of the model.
      head: Whether the model has the head of a language model.
    """
    rows = [(family.prefix, row) for row in family.rows]
    for prefix, row in rows + [("", row) for row in family.head if head]:
        for i in range(layers if "{i}" in row.name else 1):
            for name, path, transform in KINDS[row.kind]:
                yield Entry(
                    prefix + row.name.format(i=i) + name,
                    tuple(module + path for module in row.paths.format(i=i).split()),
                    transform,
                )


def is_ignored(family: Family, name: str) -> bool:
    """Returns whether a checkpoint may have an array that is not needed."""
    name = name.removeprefix(family.prefix)
    return any(re.fullmatch(pattern, name) for pattern in family.ignored)
