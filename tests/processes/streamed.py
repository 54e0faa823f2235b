"""Trains on parts that are read call by call, as one of several processes.

    python -m tests.processes.streamed JOB

JOB is JSON: the coordinator's `port`, the `count` of processes, the `index` of this one
and the `runs`, by name. Prints, of each run, the losses, the parameters and the windows
that each call of the steps read. With a count of 1, nothing is joined or divided.
Process 0 ends when its standard input does.
"""

import json
import os
import sys

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ffnlab import data, processes, trees
from ffnlab.models import DecoderConfig, EncoderConfig, language_model
from ffnlab.processes import runtime
from ffnlab.train import optimizers, sharding
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.learner import Learner, Parts
from ffnlab.train.loop import Hooks, fit
from ffnlab.train.mesh_config import AXES, parse
from ffnlab.train.record import Plan
from ffnlab.types import Model

PLAN = Plan(steps=24, every=4, batch=8)
WINDOWS, LENGTH, VOCABULARY = 50, 8, 32
SHAPE = {"layers": 1, "features": 16, "heads": 2, "hidden": 32, "length": LENGTH}


def windows(index):
    """Returns the windows of some numbers, each of its own length."""
    start = np.asarray(index)[:, None]
    tokens = ((start * 7 + np.arange(LENGTH) * 5) ** 2 % VOCABULARY).astype(np.int32)
    mask = np.arange(LENGTH) < 3 + start % (LENGTH - 2)
    labels = np.where(mask, tokens, data.dataset.IGNORE)
    return {"x/tokens": tokens, "x/mask": mask, "y": labels}


def learner(objective):
    """Returns the learner of a language model of the dtype that JAX has by default."""
    if objective == "causal":
        config = DecoderConfig.tiny(**SHAPE, vocabulary=VOCABULARY)
        model = language_model.causal_lm(config)
    else:
        config = EncoderConfig.tiny(
            **SHAPE, vocabulary=VOCABULARY, dropout=0.2, head="tied"
        )
        model = language_model.masked_lm(config, 1)

    def init(key):
        return jax.tree.map(lambda leaf: leaf.astype(float), model.init(key))

    return Learner(
        Model(init, model.apply),
        language_model.objective(1.0),
        optimizers.make("nesterov", 0.1, clip=1.0),
        independent=True,
    )


def layout(mesh, order):
    """Returns the layout of a mesh whose devices are in some order."""
    if not order:
        return sharding.make_layout(parse(mesh))
    sizes = parse(mesh)
    devices = np.array(jax.devices())[order].reshape([sizes[axis] for axis in AXES])
    return sharding.Layout(Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3))


def train(objective, mesh=(), order=(), checkpoint=None, stop=None):
    """Returns the losses and parameters of a run, and what it has read."""
    reads = []

    def read(index):
        reads.append(np.asarray(index).tolist())
        return windows(index)

    def end(record):
        if record.step == stop:
            raise KeyboardInterrupt

    part = data.Streamed(WINDOWS, read, "windows")
    dataset = Parts("windows", part, windows(np.arange(12)))
    hooks = Hooks(Checkpoints(checkpoint, 0.0) if checkpoint else None, end)
    where = layout(mesh, order) if processes.several() else None
    try:
        result = fit(learner(objective), dataset, PLAN, hooks=hooks, layout=where)
    except KeyboardInterrupt:
        return {"reads": reads}
    params = trees.flatten(processes.gather(result.state.params))
    arrays = {name: np.asarray(leaf).tolist() for name, leaf in params.items()}
    dtypes = sorted({str(leaf.dtype) for leaf in params.values()})
    loss = result.record.loss.tolist()
    return {"loss": loss, "params": arrays, "reads": reads, "dtypes": dtypes}


def main():
    job = json.loads(sys.argv[1])
    if job["count"] > 1:
        runtime.connect(f"localhost:{job['port']}", job["count"], job["index"])
    results = {name: train(**options) for name, options in job["runs"].items()}
    processes.meet()
    print(json.dumps(results), flush=True)
    if job["index"] == 0:  # the coordinator, which ends after the others
        sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
