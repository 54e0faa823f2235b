"""What does a pretrained checkpoint make of your files?

Fine-tunes a BERT, RoBERTa, XLM-RoBERTa, DistilBERT or ELECTRA on files of labelled
texts or of questions, or a GPT-2 on texts and their targets; chooses the best epoch on
the dev part, and reports the scores of the test part.

    python -m experiments.finetune --task=tag --checkpoint=minilm \\
        --train=train.conll --dev=dev.conll --test=test.conll
    python -m experiments.finetune --task=classify --checkpoint=minilm \\
        --train=sms.tsv --text_column=2 --label_column=1 --split=0.7,0.1,0.2
    python -m experiments.finetune --task=pairs --checkpoint=minilm --train=a.jsonl \\
        --dev=b.jsonl --text_column=premise --pair_column=hypothesis
    python -m experiments.finetune --task=qa --checkpoint=minilm --train=train.json \\
        --dev=dev.json
    python -m experiments.finetune --task=generate --checkpoint=gpt2 --train=a.tsv \\
        --split=0.8,0.1,0.1 --text_column=article --label_column=summary
    python -m experiments.finetune --task=pairs --checkpoint=minilm --train=sts.tsv \\
        --split=0.8,0.1,0.1 --problem_type=regression
    python -m experiments.finetune --flagfile=OUT/flags    (repeats a run)

The flags of transformers' run_ner, run_glue, run_classification and run_qa work too.

Tasks: classify, a label for each text; pairs, a label for two texts, or for two
entities marked in one; tag, a label for each word; qa, the span of a context that
answers a question, or no answer; generate, text-to-text generation. With
--problem_type, classify and pairs predict a number, or several labels. Files: CSV, TSV,
JSON of any layout, Parquet, Arrow, CoNLL columns, and SQuAD's JSON; for tag also
CoNLL-U and tables with a column Sentence #. Tags of spans are in IO, IOB1, IOB2, BIOES,
BMES or BMEWO. OUT receives report.md, pictures, results.jsonl, predictions of dev and
test, flags, versions.json, a model card README.md and best/, a directory that
experiments.predict and, with a linear head or none, transformers load, and errors.md,
which shows what was wrong in dev and test.
"""

from experiments import launch, run_scripts
from ffnlab.devices import use_all_cores
from ffnlab.finetune.config import Config
from ffnlab.finetune.runner import run

if __name__ == "__main__":
    use_all_cores()
    launch.main(
        Config,
        run,
        __doc__,
        aliases=run_scripts.ALIASES,
        translate=run_scripts.translate,
    )
