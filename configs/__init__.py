"""Experiments as YAML files, found by name: ``relmem train --config pong/stm``."""
