"""Engines: where a model runs. All have one method, `complete`."""
