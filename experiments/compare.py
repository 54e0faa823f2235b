"""Which feed-forward block should I use, and how sure can I be?

Trains every block at the same budget, over many replicates and learning rates, and says
which blocks are better than a baseline, worse, equivalent or undecided. A replicate has
its own split of the data, initial parameters, order of the data and learning rate.

    python -m experiments.compare
    python -m experiments.compare --data=bytes --steps=2000
    python -m experiments.compare --csv=people.csv --target=income
    python -m experiments.compare --flagfile=OUT/flags    (repeats a run)

OUT receives report.md, differences.png, rates.png, curves.png, results.jsonl (one line
per run), flags and versions.json. A default run takes two to three minutes on two CPU
cores.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.sweep.comparison import compare
from ffnlab.sweep.comparison_config import QUICK, CompareConfig

if __name__ == "__main__":
    use_all_cores()
    launch.main(CompareConfig, compare, __doc__, presets={"quick": QUICK})
