"""Constitutions: the principles a judge weighs, written in YAML."""

from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Aggregation, Case, Constitution, Objective, Principle

__all__ = ["Aggregation", "Case", "Constitution", "Objective", "Principle", "load_constitution"]
