"""A linear layer and attention in bfloat16 by torch, with their gradients."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.protocol import Work

Layer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def linear(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Returns `x @ kernel + bias`."""
    return x @ kernel + bias


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """Returns attention `[B, T, N, h]`."""
    by_head = (each.transpose(1, 2) for each in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(*by_head).transpose(1, 2)


# By the number of sizes of a shape.
LAYERS: dict[int, Layer] = {3: linear, 4: attention}


def make_work(
    layer: Layer, arrays: Sequence[np.ndarray], steps: int, rate: float, threads: int
) -> Work:
    """Returns steps of gradient descent on the three arrays of a layer."""
    start = [torch.as_tensor(each).to(torch.bfloat16) for each in arrays]

    def run(_: None) -> None:
        torch.set_num_threads(threads)
        leaves = [each.clone().requires_grad_() for each in start]
        for _ in range(steps):
            loss = 0.5 * torch.sum(torch.square(layer(*leaves).float()))
            slopes = torch.autograd.grad(loss, leaves)
            with torch.no_grad():
                for leaf, slope in zip(leaves, slopes, strict=True):
                    leaf.sub_(slope, alpha=rate)

    run(None)
    return Work(run)
