"""Benchmarks: one file per question, every figure beside a peer or a physical limit measured in the same run.

``python -m benchmarks [--smoke] [names...]``: a table on stdout, all samples as JSON in ``build/bench/``.
"""
