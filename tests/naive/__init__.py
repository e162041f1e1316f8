"""Cores once more, written as loops from their equations: what tests and benchmarks compare the cores with.

Where a core maps its features to ``output_size`` outputs, the naive versions return the features (``tests/parity.py``
has that map); that of the STM returns the outputs.
"""
