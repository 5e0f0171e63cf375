"""The version of rlaif."""

__version__ = "0.1.0"
