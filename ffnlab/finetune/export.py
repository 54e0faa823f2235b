"""A fine-tuned model as a file that runs without ffnlab's code.

The file is what `jax.export` writes; beside it lie the tokenizer and the labels:

    from jax import export
    model = export.deserialize(open("model.jax", "rb").read())
    chances = model.call(tokens, mask, types, at)    # [B, K, labels]
    start_end = model.call(tokens, mask, types)      # of qa: logits [B, T, 2]
    logits = model.call(tokens, mask)                # of generate: [B, T, V]
"""

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnlab.data.tokenizer import Tokenizer
from ffnlab.errors import InputError

if TYPE_CHECKING:
    from ffnlab.finetune.finetuned_model import FinetunedModel

    pass


def export_model(tuned: "FinetunedModel", path: str) -> list[Path]:
    """Writes a model, its tokenizer and its labels; returns the files.

    The model takes tokens int32 `[B, T]`, mask bool `[B, T]`, and, unless it writes
    text, types int32 `[B, T]`; one of labels takes also at int32 `[B, K]`, the places
    to label, −1 for none. B, T and K may be any numbers, T up to the model's positions.
    It runs on CPU, CUDA and TPU.

    Raises:
      InputError: the file is there already, or its folder is not.
    """
    target = Path(path)
    if target.exists():
        raise InputError(f"export: {target} exists already; choose another name")
    if not target.parent.is_dir():
        raise InputError(f"export: {target.parent}: no such directory")
    inputs, outputs = _signature(tuned.about["task"])
    about = {**tuned.about, "labels": tuned.names, "inputs": inputs, "outputs": outputs}
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    contents = {".labels.json": text.encode()}
    if isinstance(tuned.tokenizer, Tokenizer):  # bytes need none
        contents[".tokenizer.json"] = tuned.tokenizer.inner.to_str().encode()
    contents[""] = _program(tuned)
    paths = {target.with_name(target.name + end): contents[end] for end in contents}
    parts = {path: path.with_name(path.name + ".part") for path in paths}
    try:
        for path, content in paths.items():
            parts[path].write_bytes(content)
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink()
        raise InputError(f"export: {target}: {error.strerror}") from None
    return list(reversed(paths))


def _signature(task: str) -> tuple[dict[str, str], str]:
    """Returns what the program of a task takes and gives, in its order."""
    inputs = {"tokens": "int32 [B, T]", "mask": "bool [B, T]"}
    if task == "generate":
        return inputs, "logits [B, T, vocabulary]"
    inputs["types"] = "int32 [B, T], 1 in the second text"
    if task == "qa":
        return inputs, "logits of start and end [B, T, 2]"
    what = "the first token of a word" if task == "tag" else "0, the first token"
    inputs["at"] = f"int32 [B, K], {what}; -1 for none"
    return inputs, "probabilities [B, K, labels]"


def _program(tuned: "FinetunedModel") -> bytes:
    """Returns the model, its parameters included, for any B, T and K."""
    import jax
    import jax.numpy as jnp
    from jax import export

    try:
        import flatbuffers  # noqa: F401, what jax.export writes with
    except ImportError:
        need = "pip install 'ffnlab[export]'"
        raise InputError(f"export: writing it needs flatbuffers: {need}") from None
    inputs, _ = _signature(tuned.about["task"])
    limits, placed = [f"t <= {tuned.found.config.length}"], "at" in inputs
    batch, length, *places = export.symbolic_shape(
        "b, t, k" if placed else "b, t", constraints=limits + ["k <= t"] * placed
    )
    shape = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    every = {
        "tokens": shape,
        "mask": jax.ShapeDtypeStruct((batch, length), jnp.bool_),
        "types": shape,
        "at": jax.ShapeDtypeStruct((batch, *places), jnp.int32),
    }
    shapes = {name: every[name] for name in inputs}

    def apply(*inputs: jax.Array) -> jax.Array:
        return _applied(tuned, dict(zip(shapes, inputs, strict=True)))

    exporter = export.export(jax.jit(apply), platforms=["cpu", "cuda", "tpu"])
    return bytes(exporter(*shapes.values()).serialize())


def _applied(tuned: "FinetunedModel", x: dict[str, Any]) -> Any:
    """Returns what the model gives, one text a row."""
    import jax
    import jax.numpy as jnp

    from ffnlab.models.transformer import transformer_model

    if tuned.about["task"] == "generate":
        inner = transformer_model(tuned.found.config)
        return inner.apply(tuned.params["encoder"], x["tokens"], x["mask"])[0]
    x = {**x, "segment_ids": jnp.zeros_like(x["tokens"])}
    if not tuned.found.config.types:
        x.pop("types")
    if tuned.about["task"] == "qa":
        x["inside"] = x["mask"]
        return tuned.model.apply(tuned.params, x, None)[0]
    return jax.nn.softmax(tuned.model.apply(tuned.params, x, None)[0])
