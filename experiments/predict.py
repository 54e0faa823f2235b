"""What does a fine-tuned model predict for new text?

Reads a file, or standard input line by line, and writes predictions as they come.

    python -m experiments.predict --run=OUT --input=new.txt
    echo "Ada lives in London ." | python -m experiments.predict --run=OUT
    python -m experiments.predict --run=OUT --input=words.conll --output=tagged.conll
    python -m experiments.predict --run=OUT --input=new.txt --task_output=entities
    python -m experiments.predict --run=OUT --export=model.jax
    python -m experiments.predict --adapter=OUT/adapter --checkpoint=BASE

Input: plain text, one text per line (for tag its words, separated by blanks; for pairs
two texts and for qa question and context, separated by a tab); .jsonl, .csv and .tsv,
with the columns that training had; for tag CoNLL columns, with the words in the column
that training used; for classify and generate JSON of lists, of which the last of test,
val and train is read; for qa SQuAD's .json. --format names the format where the ending
of the file does not. Standard input is text, .jsonl or .conll. Blank lines are skipped.
All bad lines of a file are reported before anything is written. Input and output are
in UTF-8, whatever the locale is.

Output: for tag one line per word, the tag last; for generate the text; otherwise one
line per text: label or answer, probability and text, separated by tabs. Rows, JSON
lines and CoNLL columns come back whole, with label and probability, or the tag, added;
SQuAD's .json comes back as answers by id.

--task_output=entities, labels or answers writes a JSON line per input instead: what
came in, and a list of objects. Entities (for tag) have type, start, end, score and
text; a text is cut into words as the model's tokenizer cuts it, and start and end are
characters, but word numbers where the input has lists of words or CoNLL columns.
Labels (for classify and pairs) have label and probability, all of them or --top_k.
Answers (for qa) have text, start, end and score; with --top_k the best of all.

--export=FILE writes a program for
jax.export.deserialize, FILE.tokenizer.json and FILE.labels.json, which describes the
inputs of the program.
"""

from experiments import launch
from ffnlab.finetune.predict_files import PredictConfig, predict

if __name__ == "__main__":
    launch.main(PredictConfig, predict, __doc__)
