"""Experiment files, one per experiment."""
