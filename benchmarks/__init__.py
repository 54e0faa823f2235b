"""Benchmarks: one module per claim of speed, each with its peers in the same run.

Run one as `python -m benchmarks.NAME`: `sweep`, `dispatch`, `ffn`, `feedback`,
`from_scratch`, `padding` or `finetune`; `calibration` measures verdicts and no speed.
`benchmarks/protocol.py` describes how times are measured. A benchmark prints tables and
asserts no time, because machines differ. It runs without its peer and says so.
"""

import experiments  # noqa: F401, handles the signals of a benchmark too
