"""Does the engine written from scratch compute what JAX and optax do?

Trains one network twice, by `ffnlab.scratch` on NumPy and by JAX with optax, from equal
parameters over equal batches in float64, for every optimizer and several seeds, and
prints how far apart losses and parameters are after each epoch.

    python -m experiments.from_scratch
    python -m experiments.from_scratch --hidden=64,64 --activation=tanh --steps=1000
    python -m experiments.from_scratch --flagfile=OUT/flags    (repeats a run)

OUT receives report.md, curves.png, results.jsonl (a line an epoch of a run), flags and
versions.json. A default run takes about ten seconds on two CPU cores.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.sweep.scratch_parity import QUICK, ScratchParityConfig, check_parity

if __name__ == "__main__":
    use_all_cores()
    launch.main(ScratchParityConfig, check_parity, __doc__, presets={"quick": QUICK})
