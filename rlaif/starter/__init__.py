"""The starter: a small judge and policy, trained from scratch on a constructed world, for demonstrations and tests.

This file is what the rest of rlaif knows of it: its name and where its checkpoint is. The modules beside it made it.
"""

from __future__ import annotations

from pathlib import Path

from rlaif.errors import RunError

STARTER = "starter"
# What the model is loaded from, and all that its digest covers: a stray file beside them changes nothing.
CHECKPOINT_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
JUDGE_NOTE = (
    "Note: the starter is a demonstration judge for its own small world; its labels are not real ones. "
    "Choose a judge with --judge HUB_ID|PATH, or --base-url URL of a server."
)
POLICY_NOTE = (
    "Note: the starter is a demonstration policy; it answers the prompts of its own small world only. "
    "Choose a policy with --policy HUB_ID|PATH."
)
_FOLDER = Path(__file__).parent / "checkpoint"


def checkpoint() -> Path:
    """Folder of the checkpoint that comes with rlaif.

    Raises:
        RunError: this installation came without it.
    """
    for name in CHECKPOINT_FILES:
        if not (_FOLDER / name).is_file():
            raise RunError(
                f"{_FOLDER / name}: missing, so this installation has no starter model; install rlaif again, or name "
                "another model: a folder, a hub id, or --base-url of a server."
            )
    return _FOLDER
