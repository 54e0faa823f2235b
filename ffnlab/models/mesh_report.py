"""Priced meshes as tables and as a sentence."""

from collections.abc import Sequence

from ffnlab.models.mesh_cost import MeshCost
from ffnlab.report.table import Table

_MEMORY = {
    "parameters": "parameters, float32, and a copy for bfloat16 products",
    "gradients": "gradients, float32",
    "moments": "Adam's moments, float32",
    "gathered": "weights and gradients on their way",
    "activations": "activations for the backward pass",
    "logits": "logits and their gradient",
}
_SENT = {"weights": "weights and gradients, data axis", "activations": "model axis"}
_TIME = {
    "products": "products",
    "memory": "reads and writes of the products",
    "update": "update of the parameters",
}


def table(costs: Sequence[MeshCost]) -> Table:
    """Returns a table with a row for each mesh."""
    columns = [
        "mesh",
        "fsdp",
        "recompute",
        "bound by",
        "memory, GB",
        "fits",
        "products, ms",
        "weights sent, ms",
        "activations sent, ms",
        "step, ms",
        "MFU",
        "MFU, no overlap",
    ]
    return Table(columns, [_row(cost) for cost in costs], 4)


def _row(cost: MeshCost) -> list[str]:
    mesh = cost.mesh
    return [
        str(mesh),
        _word(mesh.fsdp),
        _word(mesh.recompute),
        cost.bound,
        f"{sum(cost.memory.values()) / 1e9:.1f}",
        _word(cost.fits),
        _milliseconds(cost.seconds["products"]),
        _links(cost, "weights"),
        _links(cost, "activations"),
        _milliseconds(cost.with_overlap),
        f"{cost.utilization(cost.with_overlap):.0%}",
        f"{cost.utilization(cost.without_overlap):.0%}",
    ]


def _links(cost: MeshCost, purpose: str) -> str:
    """Returns the milliseconds of messages, for each link."""
    start = f"{purpose} over "
    parts = [
        f"{_milliseconds(seconds)} {name.removeprefix(start)}"
        for name, seconds in cost.seconds.items()
        if name.startswith(start)
    ]
    return " + ".join(parts) or "0"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def _word(value: bool) -> str:
    return "yes" if value else "no"


def details(cost: MeshCost) -> Table:
    """Returns a table with the parts of the cost of a mesh, for one device."""
    rows = [
        ["memory", _MEMORY[name], f"{size / 1e9:.2f} GB"]
        for name, size in cost.memory.items()
    ]
    rows.append(["operations", "of the model", f"{cost.model_flops / 1e12:.1f} TFLOP"])
    again = cost.flops - cost.model_flops
    rows.append(["operations", "recomputed", f"{again / 1e12:.1f} TFLOP"])
    rows += [
        [f"sent over {link}", _SENT[purpose], f"{sent / 1e9:.2f} GB"]
        for (purpose, link), sent in cost.sent.items()
    ]
    rows += [
        ["operations a byte", f"{name}, in balance at {balance:,.0f}", f"{ratio:,.0f}"]
        for name, (ratio, balance) in cost.intensities.items()
    ]
    rows += [
        ["time", _TIME.get(name, name), f"{_milliseconds(seconds)} ms"]
        for name, seconds in cost.seconds.items()
    ]
    rows.append(["time", "step, overlapped", f"{_milliseconds(cost.with_overlap)} ms"])
    apart = _milliseconds(cost.without_overlap)
    rows.append(["time", "step, nothing overlapped", f"{apart} ms"])
    return Table(["device", "of a step", "value"], rows, 2)


def advice(costs: Sequence[MeshCost]) -> str:
    """Returns which mesh to choose and why, in one sentence.

    Args:
      costs: The costs of the meshes, the best first.
    """
    best = costs[0]
    needed, room = (f"{n / 1e9:.1f} GB" for n in (_needed(best), best.capacity))
    if not best.fits:
        return (
            f"No mesh fits: {describe(best)} comes nearest and needs {needed} of "
            f"{room}; give more devices, fewer tokens or more recomputation."
        )
    share = f"{best.utilization(best.with_overlap):.0%}"
    chosen = f"--mesh={best.mesh} {_flags(best)}".strip()
    return (
        f"Choose {chosen}: it needs {needed} of {room}, is bound by "
        f"{best.bound}, and reaches at most {share} of the peak{_runner_up(costs)}."
    )


def _runner_up(costs: Sequence[MeshCost]) -> str:
    """Returns how much slower the next kind of mesh is, in words."""
    best = costs[0]
    others = [
        cost for cost in costs[1:] if cost.fits and cost.mesh[:3] != best.mesh[:3]
    ]
    if not others:
        return ""
    more = others[0].with_overlap / best.with_overlap - 1
    return f"; {describe(others[0])} takes {more:.0%} more time"


def describe(cost: MeshCost) -> str:
    """Returns a mesh and how it is used, in words."""
    return f"{cost.mesh} {_flags(cost)}".strip()


def _flags(cost: MeshCost) -> str:
    flags = {"--fsdp": cost.mesh.fsdp}
    flags["--gradient_checkpointing"] = cost.mesh.recompute
    return " ".join(flag for flag, given in flags.items() if given)


def _needed(cost: MeshCost) -> float:
    return sum(cost.memory.values())
