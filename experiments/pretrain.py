"""How well does a Transformer with this block learn a language?

Trains a language model on text. A causal model predicts each token from the tokens
before it, a masked model predicts masked tokens. Tokens are bytes or those of a given
tokenizer; training starts from scratch or continues from a checkpoint. Prints
perplexity and bits per byte on held-out text, and samples of a causal model.

    python -m experiments.pretrain
    python -m experiments.pretrain --block=mlp:gelu --positions=learned
    python -m experiments.pretrain --text=a.txt,b.txt --objective=masked --whole_words
    python -m experiments.pretrain --checkpoint=gpt2 --text=a.txt --optimizer=adamw \
        --learning_rate=1e-4
    python -m experiments.pretrain --checkpoint=OUT/best --steps=0 --prompt="def "
    python -m experiments.pretrain --flagfile=OUT/flags    (repeats a run)

The default text is the source of Python's standard library. The output directory
receives report.md, curve.png, samples.txt, results.jsonl, flags, versions.json and
best/, a checkpoint directory for further runs. A default run takes about five minutes
on two CPU cores.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.pretrain.config import QUICK, Config
from ffnlab.pretrain.runner import run

if __name__ == "__main__":
    use_all_cores()
    launch.main(Config, run, __doc__, presets={"quick": QUICK})
