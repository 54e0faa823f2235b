"""The equations again, in float64 NumPy and SciPy, written from their papers."""

import zlib

import jax
import numpy as np
from scipy import special

from ffnlab import trees


def random_params(model, scale=0.4, dtype=np.float32):
    """Returns parameters of a model, drawn by NumPy: nothing is compiled.

    Kernels and embeddings have standard deviation `scale`; biases are near 0, and norm
    scales and β near 1.
    """
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    leaves = {}
    for name, leaf in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        centre = float(name.endswith(("scale", "beta")))
        spread = 0.1 if centre or name.endswith("bias") else scale
        leaves[name] = (centre + spread * rng.normal(size=leaf.shape)).astype(dtype)
    return trees.unflatten(leaves)


def logistic(x):
    return 1.0 / (1.0 + np.exp(-x))


ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))
    ),
    "sigmoid": logistic,
    "tanh": np.tanh,
    "gelu": lambda x: x * 0.5 * (1 + special.erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    ),
    "silu": lambda x: x * logistic(x),
    "swish": lambda x: x * logistic(x),
    "swish_channel": lambda x: x * logistic(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


def layer_norm(x, scale, bias, epsilon):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * scale + bias


def rms_norm(x, scale, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


def linear(x, weights):
    return x @ weights["kernel"] + weights.get("bias", 0.0)


def norm(x, weights, epsilon):
    if "bias" in weights:
        return layer_norm(x, weights["scale"], weights["bias"], epsilon)
    return rms_norm(x, weights["scale"], epsilon)


def feed_forward(x, params, config):
    """A feed-forward block: norm, projections, activation, gate, residual."""
    activation = ACTIVATIONS[config.kind.partition(":")[2] or config.block.activation]
    inside = x
    if config.norm in ("pre", "sandwich"):
        inside = norm_by(x, params["norm"], config)
    if "gate" in params:
        hidden = activation(linear(inside, params["gate"]))
        hidden = hidden * linear(inside, params["up"])
    else:
        hidden = activation(linear(inside, params["up"]))
    if config.norm == "hidden":
        hidden = norm_by(hidden, params["norm"], config)
    y = linear(hidden, params["down"])
    if config.norm == "sandwich":
        y = norm_by(y, params["norm_out"], config)
    if config.residual:
        y = x + config.residual_scale * y
    return norm_by(y, params["norm"], config) if config.norm == "post" else y


def feedback(drive, left, right, inside=None, activation="tanh", mask=None, ends=None):
    """States of one sequence `[T, H]`, updated one after another until none changes."""
    f, (length, width) = ACTIVATIONS[activation], drive.shape
    mask = np.ones(length, bool) if mask is None else mask
    first, last = np.zeros((2, width)) if ends is None else ends
    inside = np.zeros((width, width)) if inside is None else inside
    h = np.zeros_like(drive)
    for _ in range(5000):
        before = h.copy()
        for t in np.flatnonzero(mask):
            a = h[t - 1] if t > 0 and mask[t - 1] else first
            b = h[t + 1] if t + 1 < length and mask[t + 1] else last
            h[t] = f(drive[t] + a @ left + b @ right + h[t] @ inside)
        if np.abs(h - before).max() < 1e-14:
            return h
    raise AssertionError("the oracle did not converge")


def gru(x, up, bias, kernel, inner):
    """States `[B, T, H]` of inputs `[B, T, D]`; columns are reset, keep, new."""
    h, states = np.zeros((len(x), len(kernel))), []
    for t in range(x.shape[1]):
        reset, keep, new = np.split(x[:, t] @ up + bias, 3, axis=1)
        recurrent = np.split(h @ kernel, 3, axis=1)
        reset, keep = logistic(reset + recurrent[0]), logistic(keep + recurrent[1])
        new = np.tanh(new + reset * (recurrent[2] + inner))
        h = (1 - keep) * new + keep * h
        states.append(h)
    return np.stack(states, axis=1)


def norm_by(x, params, config):
    if config.norm_kind == "layer":
        return layer_norm(x, params["scale"], params["bias"], config.epsilon)
    if config.norm_kind == "batch":  # by running statistics if there are any
        axes = tuple(range(x.ndim - 1))
        mean, var = params.get("mean", x.mean(axes)), params.get("var", x.var(axes))
        x = (x - mean) / np.sqrt(var + config.epsilon)
        return x * params["scale"] + params["bias"]
    size = np.sqrt((x**2).mean(-1, keepdims=True) + config.epsilon)
    return x / size * params["scale"]


def attention(x, mask, params, config):
    """Attention position by position; groups of heads share keys and values."""
    heads, width = config.heads, config.features // config.heads
    groups = heads // (config.key_value_heads or heads)
    out = np.zeros(x.shape)
    for row in range(len(x)):
        parts = {n: linear(x[row], params[n]) for n in ("query", "key", "value")}
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            few = slice(head // groups * width, (head // groups + 1) * width)
            query, key = parts["query"][:, own], parts["key"][:, few]
            if config.positions == "rotary":
                query, key = rotate(query), rotate(key)
            for t in range(x.shape[1]):
                scores = key @ query[t] / np.sqrt(width)
                scores = np.where(mask[row, t], scores, -np.inf)
                if not mask[row, t].any():
                    continue
                weight = np.exp(scores - scores.max())
                out[row, t, own] = weight / weight.sum() @ parts["value"][:, few]
    return linear(out, params["out"])


def rotate(x):
    """Rotary embeddings with complex numbers (Su et al. 2021)."""
    half = x.shape[-1] // 2
    pairs = x[:, :half] + 1j * x[:, half:]
    frequencies = 10_000.0 ** (-np.arange(half) / half)
    pairs = pairs * np.exp(1j * np.arange(len(x))[:, None] * frequencies)
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


def block(x, params, kind, activation):
    act = ACTIVATIONS[activation]
    if kind == "mlp":
        return linear(act(linear(x, params["up"])), params["down"])
    hidden = act(linear(x, params["gate"])) * linear(x, params["up"])
    return linear(hidden, params["down"])


def transformer(tokens, mask, params, config):
    """A Transformer in float64, layer by layer."""
    from ffnlab.nn.ffn import parse

    length = tokens.shape[1]
    pairs = np.repeat(mask[:, None, :], length, axis=1)
    if config.causal:
        pairs = pairs & np.tril(np.ones((length, length), bool))
    embed = params["embed"]
    x = embed["tokens"]["embedding"][tokens]
    if config.positions == "learned":
        x = x + embed["positions"]["embedding"][config.offset :][:length]
    if config.positions == "sinusoidal":
        half = config.features // 2
        angles = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(half) / half)
        x = x + np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    if config.types:
        x = x + embed["types"]["embedding"][0]
    if config.embed_norm:
        x = norm_by(x, embed["norm"], config)
    for number, name in enumerate(config.blocks):
        layer, kind = params[f"layer_{number}"], parse(name)
        pre = config.norm == "pre"
        for part, norm in (("attention", "attention_norm"), ("ffn", "ffn_norm")):
            inside = norm_by(x, layer[norm], config) if pre else x
            if part == "attention":
                y = attention(inside, pairs, layer[part], config)
            else:
                gated = "gate" in layer[part]
                y = block(inside, layer[part], "glu" if gated else "mlp", kind[1])
            x = x + y
            x = x if pre else norm_by(x, layer[norm], config)
    if config.norm == "pre":
        x = norm_by(x, params["norm"], config)
    outputs = {}
    if config.pooler:
        outputs["pooled"] = np.tanh(linear(x[:, 0], params["pooler"]))
    if config.head == "tied":
        if config.head_dense:
            act = ACTIVATIONS[parse(config.blocks[-1])[1]]
            dense = act(linear(x, params["head"]["dense"]))
            x = norm_by(dense, params["head"]["norm"], config)
        x = x @ embed["tokens"]["embedding"].T
        x = x + params["head"]["bias"] if config.head_bias else x
    return {"y": x, **outputs}
