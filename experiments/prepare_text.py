"""How do I train on text that does not fit in memory?

Reads text files of any size block by block, and writes their tokens as shards, which
experiments.pretrain reads where it needs them. The first 90 % of each file are train,
the next 5 % valid and the last 5 % test; files are cut at line ends.

    python -m experiments.prepare_text --text=a.txt,b.txt --out=SHARDS
    python -m experiments.prepare_text --text=a.txt --tokenizer=gpt2 --out=SHARDS
    python -m experiments.prepare_text ... --out=SHARDS --resume
    python -m experiments.pretrain --shards=SHARDS

SHARDS receives shards.json, the tokenizer, for each shard its tokens and the places
where words begin, and manifest.sha256. A core takes 1 to 4 MB of text a second.
"""

from experiments import launch
from ffnlab.pretrain.text_preparation import PrepareConfig, prepare_text

if __name__ == "__main__":
    launch.main(PrepareConfig, prepare_text, __doc__, compiles=False)
