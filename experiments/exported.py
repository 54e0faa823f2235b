"""A fine-tuned model as a file that runs without ffnlab's code.

The file is what `jax.export` writes; beside it lie the tokenizer and the labels:

    from jax import export
    model = export.deserialize(open("model.jax", "rb").read())
    chances = model.call(tokens, mask, types, at)    # [B, K, labels]
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ffnlab.errors import InputError

if TYPE_CHECKING:
    from experiments.predict import Labels


def write(labels: "Labels", path: str) -> list[Path]:
    """Writes a model, its tokenizer and its labels; returns the files.

    The model takes tokens int32 `[B, T]`, mask bool `[B, T]`, types int32 `[B, T]` and
    at int32 `[B, K]`, the places to label, −1 for none; B, T and K may be any numbers,
    T up to the model's positions. It runs on CPU, CUDA and TPU.

    Raises:
      InputError: the file is there already, or its folder is not.
    """
    target = Path(path)
    if target.exists():
        raise InputError(f"--export: {target} exists already; choose another name")
    if not target.parent.is_dir():
        raise InputError(f"--export: {target.parent}: no such directory")
    about = {**labels.about, "labels": labels.names}
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    contents = {
        ".labels.json": text.encode(),
        ".tokenizer.json": labels.tokenizer.inner.to_str().encode(),
        "": _program(labels),
    }
    for end, content in contents.items():
        part = target.with_name(f"{target.name}{end}.part")
        part.write_bytes(content)
        os.replace(part, part.with_suffix(""))
    return [target.with_name(target.name + end) for end in reversed(contents)]


def _program(labels: "Labels") -> bytes:
    """Returns the model, its parameters included, for any B, T and K."""
    import jax
    import jax.numpy as jnp
    from jax import export

    try:
        import flatbuffers  # noqa: F401, what jax.export writes with
    except ImportError:
        need = "pip install 'ffnlab[export]'"
        raise InputError(f"--export: writing it needs flatbuffers: {need}") from None
    limits = (f"t <= {labels.model_length}", "k <= t")
    batch, length, places = export.symbolic_shape("b, t, k", constraints=limits)
    wide = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    there = jax.ShapeDtypeStruct((batch, length), jnp.bool_)
    few = jax.ShapeDtypeStruct((batch, places), jnp.int32)

    def apply(
        tokens: jax.Array, mask: jax.Array, types: jax.Array, at: jax.Array
    ) -> jax.Array:
        x = {"tokens": tokens, "mask": mask, "at": at, "packs": jnp.zeros_like(tokens)}
        x |= {"types": types} if labels.typed else {}
        return jax.nn.softmax(labels.model.apply(labels.params, x, None)[0])

    exporter = export.export(jax.jit(apply), platforms=["cpu", "cuda", "tpu"])
    return bytes(exporter(wide, there, wide, few).serialize())
