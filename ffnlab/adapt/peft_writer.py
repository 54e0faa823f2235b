"""Writes adapters in the layout of the peft library."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffnlab.adapt.files import new_directory
from ffnlab.adapt.methods import (
    IA3,
    AdaLoRA,
    Config,
    HeadOnly,
    LoRA,
    Method,
    Prefix,
    as_methods,
)
from ffnlab.adapt.peft_names import (
    ARRAYS,
    RANKNUM,
    SETTINGS,
    TASKS,
    Layer,
    head_rows,
    is_transposed,
    linear_rows,
    pooler_rows,
)
from ffnlab.adapt.selection import ENCODER, encoder_arrays, encoder_prefix
from ffnlab.adapt.surgery import partition
from ffnlab.adapt.virtual import keys_and_values
from ffnlab.errors import InputError
from ffnlab.models.transformer_config import TransformerConfig
from ffnlab.pretrained.conversion import FAMILIES
from ffnlab.pretrained.safetensors_io import require_safetensors, write_arrays
from ffnlab.types import Params

Tensors = dict[str, np.ndarray]
Arrays = Mapping[str, np.ndarray]
New = Mapping[tuple[str, str], Arrays]  # by module and method


class _Adapted(NamedTuple):
    """A model and its adapter.

    Attributes:
      new: The arrays of the adapter by module and method.
      layers: The linear layers of the model.
      encoder: The arrays of the encoder by path.
      transformer: The configuration of the encoder.
    """

    new: New
    layers: Sequence[Layer]
    encoder: Arrays
    transformer: TransformerConfig


def save_peft(
    directory: str | Path,
    trainable: Params,
    config: Config,
    params: Params,
    *,
    family: str,
    transformer: TransformerConfig,
    purpose: str | None = None,
    base: str = "",
) -> None:
    """Writes an adapter that peft loads onto the model of `transformers`.

    Args:
      directory: The directory to write; it must be empty or not exist.
      trainable: The trained part.
      config: LoRA, DoRA, AdaLoRA, (IA)³ or prefix tuning, one of them.
      params: Parameters of the base.
      family: Family of the checkpoint, a key of `FAMILIES`, such as bert.
      transformer: Configuration of the encoder.
      purpose: Task of the head: `SequenceClassification`, `TokenClassification` or
        `QuestionAnswering`; None for a model without a task head.
      base: Name or path of the checkpoint, by which peft finds it.

    Raises:
      InputError: peft cannot hold the adapter, or the directory is not empty.

    Source: peft 0.21.
    """
    require_safetensors(f"{directory}: writing it")
    method = _one_method(config)
    write = {LoRA: _lora, AdaLoRA: _adalora, IA3: _ia3, Prefix: _prefix}[type(method)]
    own, new = partition(trainable)
    model = _Adapted(
        _in_encoder(new, encoder_prefix(params)),
        linear_rows(family, transformer),
        {path: np.asarray(leaf) for path, leaf in encoder_arrays(params).items()},
        transformer,
    )
    tensors, settings = write(method, model)
    head, modules = _head(own, params, family, purpose)
    root = FAMILIES[family].prefix if purpose or family == "gpt2" else ""
    if not isinstance(method, Prefix):
        tensors = {f"base_model.model.{root}{name}": t for name, t in tensors.items()}
    start = "base_model." if isinstance(method, Prefix) else "base_model.model."
    tensors |= {f"{start}{name}": array for name, array in head.items()}
    settings |= {
        "base_model_name_or_path": base,
        "inference_mode": True,
        "modules_to_save": modules or None,
        "task_type": _task(family, purpose),
    }
    _write(directory, tensors, settings)


def _write(directory: str | Path, tensors: Tensors, settings: dict[str, Any]) -> None:
    """Writes the arrays and the settings of an adapter."""
    with new_directory(directory) as part:
        arrays = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
        write_arrays(arrays, part / ARRAYS, {"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (part / SETTINGS).write_text(text, "utf-8")


def _in_encoder(new: Mapping[tuple[str, str], Any], prefix: str) -> New:
    """Returns new arrays by module and method, with the paths of the encoder."""
    return {
        (f"{module}/".removeprefix(prefix)[:-1], name): {
            part: np.asarray(leaf, np.float32) for part, leaf in arrays.items()
        }
        for (module, name), arrays in new.items()
    }


def _one_method(config: Config) -> Method:
    """Returns the method that peft has a layout for; the head trains in any case."""
    methods = [each for each in as_methods(config) if not isinstance(each, HeadOnly)]
    if len(methods) != 1 or not isinstance(methods[0], (LoRA, AdaLoRA, IA3, Prefix)):
        listed = "+".join(each.name for each in methods)
        raise InputError(
            f"method: peft holds one of lora, adalora, ia3 and prefix, not {listed}"
        )
    return methods[0]


def _task(family: str, purpose: str | None) -> str:
    if purpose:
        return TASKS[purpose]
    return "CAUSAL_LM" if family == "gpt2" else "FEATURE_EXTRACTION"


def _head(
    own: Arrays, params: Params, family: str, purpose: str | None
) -> tuple[Tensors, list[str]]:
    """Returns the trained arrays of the model, and the modules that they are of."""
    rows = dict(head_rows(params, family, purpose)) if purpose else {}
    prefix = FAMILIES[family].prefix if purpose else ""
    rows |= {path: prefix + name for path, name in pooler_rows()}
    rows |= {path.removeprefix(ENCODER): name for path, name in pooler_rows()}
    tensors = {}
    for path, leaf in own.items():
        if path not in rows:
            raise InputError(f"method: peft has no place for {path}, which trained")
        array = np.asarray(leaf, np.float32)
        tensors[rows[path]] = array.T if is_transposed(path, rows[path]) else array
    names = (name.removeprefix(prefix).split(".")[0] for name in tensors)
    return tensors, sorted(set(names))


def _lora(method: LoRA, model: _Adapted) -> tuple[Tensors, dict[str, Any]]:
    """Returns the arrays and settings of LoRA."""
    tensors: Tensors = {}
    found, ranks = [], {}
    for layer in model.layers:
        parts = [model.new.get((module, "lora")) for module in layer.modules]
        if not any(parts):
            continue
        a, b, _ = _side_by_side(parts, layer, model.encoder, ("a", "b", None))
        tensors[f"{layer.name}.lora_A.weight"] = a.T
        tensors[f"{layer.name}.lora_B.weight"] = b.T
        if method.dora:
            name = f"{layer.name}.lora_magnitude_vector"
            tensors[name] = _magnitudes(parts, layer, model.encoder)
        found.append(layer)
        ranks[layer.name] = a.shape[1]
    rank = max(ranks.values())
    alphas = {
        r: method.scale * (r**0.5 if method.rslora else r) for r in ranks.values()
    }
    others = {name: r for name, r in ranks.items() if r != rank}
    return tensors, {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alphas[rank],
        "lora_dropout": method.dropout,
        "use_rslora": method.rslora,
        "use_dora": method.dora,
        "rank_pattern": others,
        "alpha_pattern": {name: alphas[r] for name, r in others.items()},
        "bias": "none",
        **_targets(found),
    }


def _magnitudes(
    parts: Sequence[Arrays | None], layer: Layer, encoder: Arrays
) -> np.ndarray:
    """Returns the norms of DoRA; those of layers without it are of their kernels."""
    kernels = (encoder[f"{module}/kernel"] for module in layer.modules)
    norms = (np.linalg.norm(k.astype(np.float32), axis=0) for k in kernels)
    pairs = zip(parts, norms, strict=True)
    return np.concatenate([p["magnitude"] if p else norm for p, norm in pairs])


def _side_by_side(
    parts: Sequence[Arrays | None],
    layer: Layer,
    encoder: Arrays,
    names: tuple[str, str, str | None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns A, B and Λ of a layer that consists of several of ours.

    Its A has the columns of all of them, and its B is block-diagonal, unless all have
    the same A.
    """
    left, right, middle = names
    given = [part for part in parts if part]
    widths = [encoder[f"{module}/kernel"].shape[-1] for module in layer.modules]
    shared = all(np.array_equal(part[left], given[0][left]) for part in given)
    if shared and not middle and len(given) == len(parts):
        return given[0][left], np.concatenate([part[right] for part in given], 1), None
    a = np.concatenate([part[left] for part in given], axis=1)
    b = np.zeros((a.shape[1], sum(widths)), np.float32)
    row = column = 0
    for part, width in zip(parts, widths, strict=True):
        if part:
            rank = part[right].shape[0]
            b[row : row + rank, column : column + width] = part[right]
            row += rank
        column += width
    values = np.concatenate([part[middle] for part in given]) if middle else None
    return a, b, values


def _adalora(method: AdaLoRA, model: _Adapted) -> tuple[Tensors, dict[str, Any]]:
    """Returns the arrays and settings of AdaLoRA; all layers get the largest rank."""
    found = {}
    for layer in model.layers:
        parts = [model.new.get((module, "adalora")) for module in layer.modules]
        if any(parts):
            found[layer] = _side_by_side(
                parts, layer, model.encoder, ("p", "q", "lambda")
            )
    rank = max(a.shape[1] for a, _, _ in found.values())
    tensors: Tensors = {}
    for layer, (a, b, values) in found.items():
        more = rank - a.shape[1]
        tensors[f"{layer.name}.lora_A"] = np.pad(a, [(0, 0), (0, more)]).T
        tensors[f"{layer.name}.lora_B"] = np.pad(b, [(0, more), (0, 0)]).T
        exact = values * np.float32((rank + RANKNUM) / rank)
        tensors[f"{layer.name}.lora_E"] = np.pad(exact, (0, more))[:, None]
    return tensors, {
        "peft_type": "ADALORA",
        "init_r": rank,
        "target_r": method.target_rank,
        "lora_alpha": method.scale * rank,
        "lora_dropout": method.dropout,
        "total_step": method.total_steps,
        "tinit": method.first,
        "tfinal": method.total_steps - method.last,
        "deltaT": method.interval,
        "beta1": method.beta1,
        "beta2": method.beta2,
        "orth_reg_weight": method.orthogonality,
        "bias": "none",
        **_targets([*found]),
    }


def _ia3(method: IA3, model: _Adapted) -> tuple[Tensors, dict[str, Any]]:
    """Returns the arrays and settings of (IA)³."""
    tensors: Tensors = {}
    found: dict[str, list[Layer]] = {"output": [], "input": []}
    for layer in model.layers:
        parts = [model.new.get((module, "ia3"), {}) for module in layer.modules]
        kinds = {name for part in parts for name in part}
        if not kinds:
            continue
        if len(kinds) > 1 or ("input" in kinds and len(parts) > 1):
            raise InputError(
                f"ia3: peft scales either outputs or inputs of {layer.name}, as a whole"
            )
        (kind,) = kinds
        widths = [
            model.encoder[f"{module}/kernel"].shape[-1] for module in layer.modules
        ]
        factors = np.concatenate(
            [
                part.get(kind, np.ones(width, np.float32))
                for part, width in zip(parts, widths, strict=True)
            ]
        )
        shape = (-1, 1) if kind == "output" else (1, -1)
        tensors[f"{layer.name}.ia3_l"] = factors.reshape(shape)
        found[kind].append(layer)
    inputs = _targets(found["input"])["target_modules"] if found["input"] else []
    return tensors, {
        "peft_type": "IA3",
        "feedforward_modules": inputs,
        **_targets([*found["output"], *found["input"]]),
    }


def _targets(layers: Sequence[Layer]) -> dict[str, Any]:
    """Returns the names of layers as settings.

    They are full, since a layer matches all names that it ends with: `output.dense` is
    the end of `attention.output.dense` too.
    """
    return {
        "target_modules": sorted({layer.name for layer in layers}),
        "fan_in_fan_out": any(layer.transposed for layer in layers),
    }


def _prefix(method: Prefix, model: _Adapted) -> tuple[Tensors, dict[str, Any]]:
    """Returns the array and settings of prefix tuning, without its MLP."""
    if model.transformer.positions == "learned" and not method.shift_positions:
        raise InputError(
            "shift_positions: peft counts the positions of the text from the number of "
            "virtual tokens; train with shift_positions=True"
        )
    pair = {
        n: np.asarray(a) for n, a in keys_and_values(model.new["", "prefix"]).items()
    }
    both = np.stack([pair["key"], pair["value"]], axis=1)  # [L, 2, P, ·]
    count, width = both.shape[2:]
    rows = both.transpose(2, 0, 1, 3).reshape(count, -1)
    return {"prompt_embeddings": rows}, {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": count,
        "token_dim": width,
        "num_attention_heads": model.transformer.key_value_heads
        or model.transformer.heads,
        "num_layers": model.transformer.layers,
        "num_transformer_submodules": 1,
        "encoder_hidden_size": width,
        "prefix_projection": False,
    }
