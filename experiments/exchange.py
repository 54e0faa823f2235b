"""What does it cost to change the feed-forward block of a trained model?

Replaces the blocks of a checkpoint's encoder or decoder by another kind with as many
parameters, makes each do what the old one did on a text, and prints how far it is off:
block by block, in the model's last states on lines that it was not matched on, and,
where the checkpoint has the head of a language model, in its loss on those.

    python -m experiments.exchange --checkpoint=minilm --text=lines.txt
    python -m experiments.exchange --checkpoint=gpt2 --text=lines.txt --blocks=mlp:relu

The text is read line by line, a sequence a line. OUT receives report.md, results.jsonl,
flags and versions.json. 2,000 lines through MiniLM take about four minutes a block on
two CPU cores.
"""

from experiments import launch
from ffnlab.devices import use_all_cores
from ffnlab.pretrain.swap_experiment import SwapConfig, swap_blocks

if __name__ == "__main__":
    use_all_cores()
    launch.main(SwapConfig, swap_blocks, __doc__)
