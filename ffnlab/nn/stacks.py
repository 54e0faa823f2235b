"""Arrays of layers that are held as one stack, over which a model scans."""

import re

STACK = "layers"  # the name of the stack among the parameters of a Transformer
# What a layer of a Transformer holds; other models may call a list of modules `layers`.
_STACKED = re.compile(rf"(^|/){STACK}/(bottleneck/)?(attention|ffn)(_norm)?/")


def stack_axes(path: str) -> int:
    """Returns the number of dimensions of an array that count layers.

    Args:
      path: The path of the array, or of an optimizer's array for it.

    Returns:
      1 for an array `[L, ...]` of a Transformer with stacked layers, otherwise 0.

    >>> stack_axes("layers/ffn/up/kernel"), stack_axes("layer_0/ffn/up/kernel")
    (1, 0)
    """
    return int(bool(_STACKED.search(path)))
