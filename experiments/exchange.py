"""What does it cost to change the feed-forward block of a trained model?

Replaces the blocks of a checkpoint by blocks of another kind with as many parameters,
and trains each new block to reproduce the outputs of the old one on a text. Prints the
error of each block, the error of the model's last states on held-out lines, and, if the
checkpoint has the head of a language model, the loss on these lines.

    python -m experiments.exchange --checkpoint=minilm --text=lines.txt
    python -m experiments.exchange --checkpoint=gpt2 --text=lines.txt --blocks=mlp:relu
    python -m experiments.exchange --flagfile=OUT/flags --out=OUT --resume

Every line of the text is a sequence. OUT receives report.md, results.jsonl (one line
per block), flags and versions.json. 2,000 lines through MiniLM take about four minutes
per block on two CPU cores. An interrupted run is continued with --resume: its finished
blocks are in results.jsonl, and the training of the others is saved every minute.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.pretrain.swap_experiment import SwapConfig, swap_blocks

if __name__ == "__main__":
    use_all_cores()
    launch.main(SwapConfig, swap_blocks, __doc__)
