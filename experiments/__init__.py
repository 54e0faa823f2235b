"""One launcher per question: `python -m experiments.NAME --help`."""
