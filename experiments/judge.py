"""What can I conclude from a table of runs that I already have?

Reads a CSV or TSV file with a row for each run, such as the export of a tracker. Pairs
the runs by a column, such as the seed, and compares every block with the baseline, by
the statistic of experiments.compare. Reports what can be claimed, and what cannot.
With --runs, joins run directories of experiments.compare or experiments.feedback
instead: all shards of one comparison, or comparisons that differ in their seed.

    python -m experiments.judge --results=runs.csv --block=model --pair=seed --score=acc
    python -m experiments.judge ... --score=loss --lower_is_better --margin=0.01
    python -m experiments.judge ... --where=state=finished,dataset=wine --out=OUT
    python -m experiments.judge --runs='SHARDS/*' --out=OUT

OUT receives report.md, differences.png, comparisons.jsonl (a line for each block),
flags and versions.json; of run directories, what a run of all replicates would write.
"""

from experiments import launch
from ffnlab.sweep.judge_config import JudgeConfig
from ffnlab.sweep.judgement import judge

if __name__ == "__main__":
    launch.main(JudgeConfig, judge, __doc__, compiles=False)
