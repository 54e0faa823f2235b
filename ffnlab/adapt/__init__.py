"""Parameter-efficient fine-tuning: LoRA and its kin as pure functions.

config = adapt.LoRA(rank=8) + adapt.BitFit()  # or adapt.parse("lora+bitfit")
trainable, frozen, apply = adapt.apply(params, config, model)
outputs, aux = apply(trainable, frozen, x, key)
grads = jax.grad(loss)(trainable, frozen, x, key)  # by trainable alone
adapt.save("out", trainable, config, params)
merged = adapt.merge(trainable, frozen, config)
"""

from ffnlab.lazy import attach

_NAMES = {
    "AdaLoRA": "methods",
    "Adapted": "surgery",
    "AttentionOnly": "methods",
    "BitFit": "methods",
    "Bottleneck": "methods",
    "FFNOnly": "methods",
    "Full": "methods",
    "HeadOnly": "methods",
    "IA3": "methods",
    "LoRA": "methods",
    "METHODS": "method_names",
    "Prefix": "methods",
    "Prompt": "methods",
    "TopLayers": "methods",
    "apply": "surgery",
    "init": "surgery",
    "base_digest": "files",
    "by_row": "several",
    "combine": "several",
    "fold": "merging",
    "join": "surgery",
    "load": "files",
    "load_peft": "peft_reader",
    "merge": "merging",
    "parse": "method_names",
    "rates": "surgery",
    "read_about": "files",
    "save": "files",
    "save_peft": "peft_writer",
    "select": "several",
    "stack": "several",
    "summary": "surgery",
    "unmerge": "merging",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
