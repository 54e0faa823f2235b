"""One file per claim of speed, the peers beside us in the same run.

`python -m benchmarks.sweep`, `.dispatch` and `.ffn`; `benchmarks/protocol.py` says how
times are taken. Nothing here asserts a time: machines differ, and tables are read.
"""
