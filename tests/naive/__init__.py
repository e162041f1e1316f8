"""The relational memories once more, written from their equations: what tests and benchmarks compare the cores with."""
