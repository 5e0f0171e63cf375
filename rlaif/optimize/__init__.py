"""Rewards in use: picks, over-optimisation, probes, comparison, and scores for reinforcement learning."""
