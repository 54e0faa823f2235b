"""How the checkpoints of others are laid out, written as data.

A `Row` says what a module is called in a checkpoint of transformers, where it is in our
parameters, and of which kind it is. Loading and saving read the same rows.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ffnlab.errors import InputError
from ffnlab.models.transformer_config import (
    DecoderConfig,
    EncoderConfig,
    TransformerConfig,
)


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      theirs: the name of a module, `{i}` being the number of a layer.
      ours: the path of ours; several, separated by spaces, if theirs is of ours side by
        side.
      kind: a key of `KINDS`.
    """

    theirs: str
    ours: str
    kind: str = "linear"


def _same(array: np.ndarray) -> np.ndarray:
    return array


# By kind: the names of the arrays of a module, theirs and ours, and what turns one into
# the other, in both directions.
KINDS: dict[str, list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]]] = {
    "linear": [(".weight", "/kernel", np.transpose), (".bias", "/bias", _same)],
    "conv1d": [(".weight", "/kernel", _same), (".bias", "/bias", _same)],
    "norm": [(".weight", "/scale", _same), (".bias", "/bias", _same)],
    "embedding": [(".weight", "/embedding", _same)],
    "vector": [("", "", _same)],
}


class Entry(NamedTuple):
    """One array of a checkpoint.

    Attributes:
      theirs: its name there.
      ours: its path, or paths, in our parameters.
      turn: what makes the one of the other.
    """

    theirs: str
    ours: tuple[str, ...]
    turn: Callable[[np.ndarray], np.ndarray]

    def read(self, array: np.ndarray) -> list[np.ndarray]:
        """Returns our arrays."""
        return np.split(self.turn(array), len(self.ours), axis=-1)

    def write(self, arrays: list[np.ndarray]) -> np.ndarray:
        """Returns their array."""
        return np.ascontiguousarray(self.turn(np.concatenate(arrays, axis=-1)))


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

# Names of activations in config.json, and ours; the first of equal ones is written.
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
    """A kind of checkpoint.

    Attributes:
      prefix: before the names of the rows, in models that have a head.
      rows: what every model has.
      head: what a language model has beside them, with full names.
      ties: names of copies of other arrays, and what they copy.
      others: patterns of what may be there and is of no use here: buffers, and the
        heads of other tasks.
      fields: our fields of a config to the keys of config.json.
      fixed: keys of config.json that must have a value, if they are there.
      config: the class of the config, and fields that never change.
      architectures: the names of the model without and with its head.
    """

    prefix: str
    rows: list[Row]
    head: list[Row]
    ties: dict[str, str]
    others: tuple[str, ...]
    fields: dict[str, str]
    fixed: dict[str, Any]
    config: Callable[..., TransformerConfig]
    architectures: tuple[str, str]

    @property
    def own(self) -> bool:
        """Whether it is our own: any config, arrays by their paths."""
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
    "ffnlab": Family(
        "",
        [],
        [],
        {},
        (r"(head|pooler)/.*", r"classifier\..*", r"qa_outputs\..*"),
        {field.name: field.name for field in dataclasses.fields(TransformerConfig)},
        {},
        TransformerConfig,
        ("", ""),
    ),
}  # fmt: skip


def entries(family: Family, layers: int, head: bool) -> Iterator[Entry]:
    """Yields every array that a model of a family has, by the names with a head.

    Args:
      family: a row of `FAMILIES`.
      layers: how many layers the model has.
      head: whether it has the head of a language model.
    """
    rows = [(family.prefix, row) for row in family.rows]
    for prefix, row in rows + [("", row) for row in family.head if head]:
        for i in range(layers if "{i}" in row.theirs else 1):
            for their_leaf, our_leaf, turn in KINDS[row.kind]:
                yield Entry(
                    prefix + row.theirs.format(i=i) + their_leaf,
                    tuple(path + our_leaf for path in row.ours.format(i=i).split()),
                    turn,
                )


def is_other(family: Family, name: str) -> bool:
    """Returns whether an array may be in a checkpoint without being of use here."""
    name = name.removeprefix(family.prefix)
    return any(re.fullmatch(pattern, name) for pattern in family.others)


def read_config(source: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the family that a config.json names, and the fields of our config.

    Args:
      source: the file, for messages.
      settings: what it holds.

    Raises:
      InputError: no family, a key is missing or a value cannot be followed; named.
    """
    kind = settings.get("model_type")
    if kind == "ffnlab":
        return kind, _own_fields(source, settings)
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InputError(f"{source}: model_type {kind!r} should be one of {known}")
    family = FAMILIES[kind]
    for key, wanted in family.fixed.items():
        if settings.get(key, wanted) != wanted:
            raise InputError(
                f"{source}: {key} is {settings[key]!r}; only {wanted!r} can be loaded"
            )
    fields = {}
    for ours, theirs in family.fields.items():
        if theirs in settings:
            fields[ours] = settings[theirs]
        elif ours in ("vocabulary", "features", "layers", "heads"):
            raise InputError(f"{source}: {theirs} is missing")
    if fields.get("hidden") is None:
        fields["hidden"] = 4 * fields["features"]
    if kind == "roberta":
        fields["offset"] = settings.get("pad_token_id", 1) + 1
        fields["length"] -= fields["offset"]
    name = fields.get("block", "gelu")
    if name not in ACTIVATIONS:
        raise InputError(
            f"{source}: activation {name!r} should be one of {', '.join(ACTIVATIONS)}"
        )
    fields["block"] = f"mlp:{ACTIVATIONS[name]}"
    return kind, fields


def _own_fields(source: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config of our own."""
    fields = FAMILIES["ffnlab"].fields
    missing = sorted(set(fields) - set(settings))
    if missing:
        raise InputError(f"{source}: {missing[0]} is missing")
    found = {name: settings[name] for name in fields}
    many = isinstance(found["block"], list)
    return {**found, "block": tuple(found["block"]) if many else found["block"]}


def write_config(kind: str, config: TransformerConfig) -> dict[str, Any]:
    """Returns what config.json says of a model.

    Raises:
      InputError: the family has no such model; what differs is named.
    """
    family = FAMILIES[kind]
    settings = {theirs: getattr(config, ours) for ours, theirs in family.fields.items()}
    if family.own:
        return {**settings, "model_type": kind}
    blocks = set(config.blocks)
    names = {f"mlp:{ours}": theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    if len(blocks) > 1 or config.blocks[0] not in names:
        found = ", ".join(sorted(blocks))
        raise InputError(
            f"a {kind} checkpoint cannot hold the block {found}; one of "
            f"{', '.join(sorted(names))} in all layers can be saved so"
        )
    if kind == "roberta":
        settings["max_position_embeddings"] += config.offset
        settings["pad_token_id"] = config.offset - 1
    settings[family.fields["block"]] = names[config.blocks[0]]
    head = config.head == "tied"
    rest = {"model_type": kind, "architectures": [family.architectures[head]]}
    expected = family.config(**read_config("config.json", {**settings, **rest})[1])
    same = ("types", "norm", "norm_kind", "embed_norm", "causal", "positions", "bias")
    for name in (*same, "epsilon", "offset", "key_value_heads"):
        ours, wanted = getattr(config, name), getattr(expected, name)
        if ours != wanted:
            raise InputError(
                f"a {kind} checkpoint cannot hold {name}={ours!r}, only {wanted!r}"
            )
    return {**settings, **rest}
