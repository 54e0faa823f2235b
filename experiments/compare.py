"""Which feed-forward block should I use, and how sure can I be?

Trains every block at the same budget, over many seeds and learning rates, and ranks
them by their score on held-out data, with intervals and corrected p-values.

    python -m experiments.compare
    python -m experiments.compare --data=bytes --steps=2000
    python -m experiments.compare --csv=people.csv --target=income
    python -m experiments.compare --flagfile=OUT/flags    (repeats a run)

OUT receives report.md, ranking.png, curves.png, results.jsonl (one line per run),
flags and versions.json. A default run takes one to two and a half minutes on two CPU
cores.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.sweep.comparison import QUICK, CompareConfig, compare

if __name__ == "__main__":
    use_all_cores()
    launch.main(CompareConfig, compare, __doc__, presets={"quick": QUICK})
