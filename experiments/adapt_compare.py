"""Which method of fine-tuning few parameters is as good as training all of them?

Fine-tunes a checkpoint by every method, each at the learning rate that is best on the
dev part, over several replicates, and says which methods are better than full
fine-tuning, worse, equivalent within a margin or undecided, and what each of them
costs.

    python -m experiments.adapt_compare --task=tag --checkpoint=minilm \\
        --train=train.conll --dev=dev.conll --test=test.conll
    python -m experiments.adapt_compare --task=classify --checkpoint=minilm \\
        --train=clinc.json --epochs=1 --methods=full,lora,houlsby,bitfit,head
    python -m experiments.adapt_compare --task=tag --checkpoint=minilm --train=... \\
        --methods=capacity    (where should the capacity go, FFN or attention?)
    python -m experiments.adapt_compare --flagfile=OUT/flags    (repeats a run)

Tasks, files and checkpoints are those of experiments.finetune. OUT receives report.md,
differences.png, parameters.png, results.jsonl (one line per run), flags and
versions.json. With --resume an interrupted comparison goes on with the run that it was
in.
"""

from experiments import launch
from experiments.run_scripts import ALIASES
from ffnlab.devices import use_all_cores
from ffnlab.finetune.adapt_compare_config import AdaptCompareConfig
from ffnlab.finetune.adapt_comparison import compare_methods

if __name__ == "__main__":
    use_all_cores()
    launch.main(AdaptCompareConfig, compare_methods, __doc__, aliases=ALIASES)
