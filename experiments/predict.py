"""Says of new text what a fine-tuned model learned to say.

Reads a file, or standard input line by line, and writes as it goes.

    python -m experiments.predict --run=OUT --input=new.txt
    echo "Ada lives in London ." | python -m experiments.predict --run=OUT
    python -m experiments.predict --run=OUT --input=words.conll --output=tagged.conll
    python -m experiments.predict --run=OUT --export=model.jax

Input: plain text, a text a line (for tag its words, separated by blanks; for pairs two
texts, for qa question and context, separated by a tab); .jsonl, .csv and .tsv, with the
columns that training had; for tag .conll, with the words where training had them; for
qa SQuAD's .json. --format says so where the ending does not; standard input is text,
.jsonl or .conll. Blank lines are passed over.
A bad line of a file is told before anything is written. Output: for tag a line a word,
the tag last; for generate the text; otherwise a line a text: label or answer,
probability, text, separated by tabs. Rows, JSON lines and CoNLL columns come back
whole, with label and probability, or the tag, added; for SQuAD's .json the answers by
id. --export=FILE writes a program for jax.export.deserialize, FILE.tokenizer.json and
FILE.labels.json, which says what the program takes.
"""

from experiments import launch
from ffnlab.finetune.predict_files import PredictConfig, predict

if __name__ == "__main__":
    launch.main(PredictConfig, predict, __doc__)
