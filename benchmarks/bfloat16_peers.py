"""A linear layer in bfloat16 by torch, with its gradients."""

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.protocol import Work


def make_work(
    arrays: Sequence[np.ndarray], steps: int, rate: float, threads: int
) -> Work:
    """Returns steps of gradient descent on the input, the kernel and the bias."""
    start = [torch.as_tensor(each).to(torch.bfloat16) for each in arrays]

    def run(_: None) -> None:
        torch.set_num_threads(threads)
        leaves = [each.clone().requires_grad_() for each in start]
        for _ in range(steps):
            x, kernel, bias = leaves
            loss = 0.5 * torch.sum(torch.square((x @ kernel + bias).float()))
            slopes = torch.autograd.grad(loss, leaves)
            with torch.no_grad():
                for leaf, slope in zip(leaves, slopes, strict=True):
                    leaf.sub_(slope, alpha=rate)

    run(None)
    return Work(run)
