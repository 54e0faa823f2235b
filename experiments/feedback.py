"""What does a network gain when every state hears both neighbours?

Trains feedback networks, h_t = f(U x_t + W h_{t−1} + V h_{t+1} + b), and recurrent
baselines with as many parameters, on sequences whose labels need what comes after,
over many seeds, and ranks them on held-out sequences. Where the process that made a
task is known, so is the best that any model can reach, with and without what follows.

    python -m experiments.feedback
    python -m experiments.feedback --tasks=brackets --hidden=64 --seeds=16
    python -m experiments.feedback --train=a.conll --dev=b.conll --test=c.conll
    python -m experiments.feedback --flagfile=OUT/flags    (repeats a run)

OUT receives report.md, a ranking and curves for each task, solvers.png, states.png,
coupling.png, results.jsonl (a line a run), best/, flags and versions.json. A default
run takes about three minutes on two CPU cores.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.sweep.feedback_comparison import (
    QUICK,
    FeedbackCompareConfig,
    compare_feedback,
)

if __name__ == "__main__":
    use_all_cores()
    launch.main(
        FeedbackCompareConfig, compare_feedback, __doc__, presets={"quick": QUICK}
    )
