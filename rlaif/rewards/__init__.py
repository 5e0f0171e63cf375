"""Reward heads: one score an objective on a shared backbone, trained from preference labels."""
