"""Does the engine from scratch compute the same as JAX and optax?

Trains a network by `ffnlab.scratch` on NumPy and by JAX with optax, from equal
parameters on equal batches in float64, for every optimizer and several seeds, and
prints the differences of losses and parameters after each epoch.

    python -m experiments.from_scratch
    python -m experiments.from_scratch --hidden=64,64 --activation=tanh --steps=1000
    python -m experiments.from_scratch --flagfile=OUT/flags    (repeats a run)
    python -m experiments.from_scratch --flagfile=OUT/flags --out=OUT --resume

OUT receives report.md, curves.png, results.jsonl (one line per epoch of a run), flags
and versions.json. With the default flags all runs take about ten seconds on two CPU
cores. An interrupted comparison is continued with --resume: its finished runs are in
results.jsonl, and a longer run is saved every minute.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.sweep.scratch_parity import check_parity
from ffnlab.sweep.scratch_parity_config import QUICK, ScratchParityConfig

if __name__ == "__main__":
    use_all_cores()
    launch.main(ScratchParityConfig, check_parity, __doc__, presets={"quick": QUICK})
