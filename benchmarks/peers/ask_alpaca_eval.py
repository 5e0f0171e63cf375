"""alpaca_eval: its pairwise annotator as `weighted_alpaca_eval_gpt4_turbo` sets it up, for another model.

One call a pair, one token, read from its log-probabilities.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from alpaca_eval import constants, utils
from alpaca_eval.annotators import PairwiseAnnotator

from benchmarks.peers.clock import Row, Work, as_text, drive

_LIKE = "weighted_alpaca_eval_gpt4_turbo"


def prepare(rows: Sequence[Row], url: str, settings: Mapping[str, str]) -> Work:
    """`threads`: its `num_procs`."""
    logging.disable(logging.WARNING)
    data = [
        {"instruction": as_text(row["prompt"]), "output_1": row["response_a"], "output_2": row["response_b"]}
        for row in rows
    ]
    (config,) = utils.load_configs(constants.EVALUATORS_CONFIG_DIR / _LIKE).values()
    config["prompt_template"] = str(constants.EVALUATORS_CONFIG_DIR / config["prompt_template"])
    config["completions_kwargs"] |= {"model_name": "stub", "num_procs": int(settings.get("threads", "5"))}
    # A price that is known saves it a warning a call.
    config["completions_kwargs"]["price_per_token"] = 0.0
    # Its files are YAML, which JSON is.
    folder = Path(tempfile.mkdtemp())
    (folder / "client.yaml").write_text(json.dumps({"default": [{"base_url": f"{url}/v1", "api_key": "none"}]}))
    config["completions_kwargs"]["client_config_path"] = str(folder / "client.yaml")
    (folder / "judge").mkdir()
    (folder / "judge" / "configs.yaml").write_text(json.dumps({"judge": config}))
    annotator = PairwiseAnnotator(annotators_config=folder / "judge", caching_path=None, is_avoid_reannotations=False)
    return lambda: sum(row["preference"] is not None for row in annotator.annotate_pairs(data, chunksize=None))


if __name__ == "__main__":
    drive(prepare, ("alpaca_eval", "openai"))
