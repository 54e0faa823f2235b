"""Parameters, operations and activations of a decoder, from its shape alone.

The decoder is that of `DecoderConfig` with rotary positions, RMS norms, no biases and
logits by the token embeddings. Nothing here needs JAX; tests compare the formulas with
the arrays and the products of the real model.
"""

import dataclasses
import math

from ffnlab.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Shape of a decoder.

    Attributes:
      features: Model width D.
      layers: Number of layers L.
      heads: Number of attention heads N.
      key_value_heads: Number of key and value heads n, a divisor of N.
      hidden: Hidden width H of the feed-forward blocks.
      vocabulary: Number of different tokens V.
      length: Tokens T of a sequence.
      inputs: Projections into the hidden width: 1, or 2 for a gated block.

    Raises:
      InputError: A width is not divisible by a number of heads.

    >>> shape = DecoderShape(**SIZES["1b"], length=4096)
    >>> f"{shape.parameters / 1e9:.3f}"
    '1.236'
    """

    features: int
    layers: int
    heads: int
    key_value_heads: int
    hidden: int
    vocabulary: int
    length: int
    inputs: int = 2

    def __post_init__(self):
        if self.features % self.heads:
            raise InputError(
                f"heads={self.heads} must divide features={self.features}; "
                f"{nearest_divisors(self.heads, self.features)}"
            )
        if self.heads % self.key_value_heads:
            raise InputError(
                f"key_value_heads={self.key_value_heads} must divide heads="
                f"{self.heads}; {nearest_divisors(self.key_value_heads, self.heads)}"
            )

    @property
    def key_value_width(self) -> int:
        """Width of the keys of a token, D · n / N."""
        return self.features * self.key_value_heads // self.heads

    @property
    def layer_matrices(self) -> int:
        """Parameters of the matrices of a layer."""
        attention = 2 * self.features + 2 * self.key_value_width
        return self.features * (attention + (self.inputs + 1) * self.hidden)

    @property
    def embeddings(self) -> int:
        """Parameters of the token embeddings, which are the head too."""
        return self.vocabulary * self.features

    @property
    def matrices(self) -> int:
        """Parameters of all matrices."""
        return self.embeddings + self.layers * self.layer_matrices

    @property
    def norms(self) -> int:
        """Parameters of all norms."""
        return (2 * self.layers + 1) * self.features

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.matrices + self.norms

    @property
    def layer_flops(self) -> int:
        """Operations of the products of all layers for a token, forward.

        The scores and the weighted sums of attention are counted for all T keys, as
        they are computed where no kernel leaves out the masked half.
        """
        attention = 4 * self.length * self.features
        return self.layers * (2 * self.layer_matrices + attention)

    @property
    def flops(self) -> int:
        """Operations of the products for a token, forward and backward.

        The backward pass has two products for each of the forward pass.
        """
        return 3 * (self.layer_flops + 2 * self.embeddings)

    @property
    def recomputed_flops(self) -> int:
        """Operations for a token that recomputing the layers adds.

        The output of a layer is kept as the input of the next one, so the last product
        of a layer, into the model width, is not repeated.
        """
        return self.layer_flops - 2 * self.layers * self.hidden * self.features

    def norm_activations(self, itemsize: int) -> int:
        """Returns the bytes for a token that the backward pass of a norm needs.

        These are its output, and in float32 three arrays and two numbers.
        """
        return (12 + itemsize) * self.features + 8

    def layer_activations(self, itemsize: int, model: int, flash: bool) -> float:
        """Returns the bytes for a token that the backward pass of a layer needs.

        Beside those of both norms these are queries, keys, values, the output of the
        heads, and what the block's projections give. XLA's attention keeps its scores
        and weights in float32, its weights in the dtype too, and its mask.

        Args:
          itemsize: Bytes of a number.
          model: Number of devices that share the heads and the hidden units.
          flash: Whether a kernel recomputes the attention weights.
        """
        heads = 2 * self.features + 2 * self.key_value_width
        split = itemsize * (heads + self.inputs * self.hidden)
        pairs = 4 if flash else self.length * (9 + itemsize) + 8
        split += self.heads * pairs
        return 2 * self.norm_activations(itemsize) + split / model

    def activations(
        self, itemsize: int, model: int, flash: bool, recompute: bool
    ) -> float:
        """Returns the bytes for a token that the backward pass needs, without logits.

        Args:
          itemsize: Bytes of a number.
          model: Number of devices that share the heads and the hidden units.
          flash: Whether a kernel recomputes the attention weights.
          recompute: Whether only the inputs of layers are kept, and the inside of one
            layer at a time.
        """
        layer = self.layer_activations(itemsize, model, flash)
        last = self.norm_activations(itemsize)
        if not recompute:
            return self.layers * layer + last
        return self.layers * itemsize * self.features + layer + last

    def logit_bytes(self, itemsize: int, model: int) -> float:
        """Returns the bytes of the logits of a token, in float32 too, and gradient."""
        return self.vocabulary / model * (2 * itemsize + 4)


SIZES: dict[str, dict[str, int]] = {
    "1b": {
        "features": 2048,
        "layers": 16,
        "heads": 32,
        "key_value_heads": 8,
        "hidden": 8192,
        "vocabulary": 128256,
    },
    "8b": {
        "features": 4096,
        "layers": 32,
        "heads": 32,
        "key_value_heads": 8,
        "hidden": 14336,
        "vocabulary": 128256,
    },
    "70b": {
        "features": 8192,
        "layers": 80,
        "heads": 64,
        "key_value_heads": 8,
        "hidden": 28672,
        "vocabulary": 128256,
    },
}


def find_divisors(total: int) -> list[int]:
    """Returns all divisors of a number, smallest first.

    >>> find_divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [n for n in range(1, math.isqrt(total) + 1) if total % n == 0]
    return sorted({*small, *(total // n for n in small)})


def nearest_divisors(number: int, total: int) -> str:
    """Returns the divisors of a total that are nearest to a number, in words.

    >>> nearest_divisors(3, 32), nearest_divisors(99, 32)
    ('nearest: 2, 4', 'nearest: 32')
    """
    divisors = find_divisors(total)
    below = [n for n in divisors if n <= number][-1:]
    above = [n for n in divisors if n > number][:1]
    return "nearest: " + ", ".join(map(str, below + above))
