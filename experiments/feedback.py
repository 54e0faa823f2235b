"""What does a network gain when every state depends on both neighbours?

Trains feedback networks, h_t = f(U x_t + W h_{t−1} + V h_{t+1} + b), and recurrent
baselines with as many parameters on sequences whose labels depend on later positions,
over many replicates, and says which are better than a baseline, worse, equivalent or
undecided. A replicate has its own draw of the data, initial parameters, order of the
data and learning rate. For tasks whose generating process is known, the best possible
score is shown, with and without later positions.

    python -m experiments.feedback
    python -m experiments.feedback --tasks=brackets --hidden=64 --seeds=16
    python -m experiments.feedback --train=a.conll --dev=b.conll --test=c.conll
    python -m experiments.feedback --shard=3/8    (experiments.judge joins all shards)
    python -m experiments.feedback --flagfile=OUT/flags    (repeats a run)

OUT receives report.md, differences, rates and curves for each task, solvers.png,
states.png, coupling.png, results.jsonl (one line per run), best/, flags and
versions.json. A run with the default flags takes three to four minutes on two CPU
cores.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.sweep.feedback_comparison import compare_feedback
from ffnlab.sweep.feedback_config import QUICK, FeedbackCompareConfig

if __name__ == "__main__":
    use_all_cores()
    launch.main(
        FeedbackCompareConfig, compare_feedback, __doc__, presets={"quick": QUICK}
    )
