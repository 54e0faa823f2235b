"""What does a fine-tuned model predict for new text?

Reads a file, or standard input line by line, and writes predictions as they come.

    python -m experiments.predict --run=OUT --input=new.txt
    echo "Ada lives in London ." | python -m experiments.predict --run=OUT
    python -m experiments.predict --run=OUT --input=words.conll --output=tagged.conll
    python -m experiments.predict --run=OUT --input=new.txt --task_output=entities
    python -m experiments.predict --run=OUT --export=model.jax
    python -m experiments.predict --adapter=OUT/adapter --checkpoint=BASE

Input: plain text, one text per line (for tag its words, separated by blanks; for pairs
two texts and for qa question and context, separated by a tab); .csv, .tsv, .jsonl,
.json, .parquet and .arrow, with the columns that training had; for tag CoNLL columns,
with the words in the column that training used, CoNLL-U, and tables of words with a
column Sentence #; for qa SQuAD's .json. JSON is read in any layout; of one with several
parts the last of test, val and train is read. --format names the format where neither
the ending of the file nor its first lines show it. Columns without a telling name are
recognised if training had columns. Standard input may be all of these but Parquet and
Arrow; text, JSON lines and CoNLL are predicted line by line. Blank lines are skipped.
All bad lines of a file are reported before anything is written. Input and output are in
UTF-8, whatever the locale is.

Output: for tag one line per word, the tag last; for generate the text; otherwise one
line per text: label or answer, probability and text, separated by tabs. Numbers have no
probability; several labels, and their probabilities, have a separator between them in
text and tables, and are lists in JSON and Parquet. Rows of tables, of JSON and of
Parquet, and CoNLL columns come back whole, with label and probability, or the tag,
added. CoNLL-U has its tags in the column of training, or in --predicted_column.
Questions of .json come back as answers by id.

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
