"""The fault campaign: what kills, floods and damages do to trainings. See ``python -m benchmarks.faults --help``."""
