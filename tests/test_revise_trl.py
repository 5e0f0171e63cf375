"""What `rlaif revise` writes, in the hands of who takes it: TRL's trainer, `datasets` and `rlaif label`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rlaif as package
from rlaif.starter import checkpoint
from tests.conftest import ROOT, read_lines

PROMPTS = ROOT / "examples" / "prompts.jsonl"


class Revised(NamedTuple):
    """One call of `rlaif revise` with the starter: its lines, and the files made of them."""

    lines: list[dict[str, Any]]
    sft_file: Path
    pairs_file: Path


@pytest.fixture(scope="module")
def revised(tmp_path_factory: pytest.TempPathFactory) -> Revised:
    """Four prompts answered, criticised and revised; texts are cut early, since a test needs no long ones.

    Revisions are drawn, so that some differ from the first response.
    """
    out = tmp_path_factory.mktemp("revise") / "revised.jsonl"
    summary = package.revise(PROMPTS, out, engine="transformers", limit=4, max_tokens=16, revision_temperature=1.0)
    lines = read_lines(out)
    assert len(lines) + summary.failed == 4
    return Revised(lines, Path(summary.sft_file), Path(summary.pairs_file))


def test_trl_trains_the_starter_on_the_last_revisions_alone(revised: Revised, tmp_path: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset("json", data_files=str(revised.sft_file), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["id"] == [line["id"] for line in revised.lines]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    config = SFTConfig(
        output_dir=str(tmp_path / "trained"),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        seed=0,
    )
    trainer = SFTTrainer(model=str(checkpoint()), args=config, train_dataset=rows, processing_class=tokenizer)
    # The conversation is context; what is learnt is the revision and the end of its turn.
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(len(revised.lines))])
    sides = (batch["input_ids"], batch["attention_mask"].bool(), batch["labels"] != -100)
    for line, tokens, real, learnt in zip(revised.lines, *sides, strict=True):
        given = tokenizer.apply_chat_template(line["prompt"], tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(tokens[real & ~learnt]) == given
        assert tokenizer.decode(tokens[learnt]) == f"{line['revision']}<|end|>"
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)
    moved = [name for name, weight in trainer.model.named_parameters() if not weight.equal(before[name])]
    assert len(moved) == len(before)


def test_label_takes_the_pairs_with_the_starter(revised: Revised, tmp_path: Path) -> None:
    labelled = package.label(
        revised.pairs_file, tmp_path / "run", engine="transformers", template="direct", objectives=["harmlessness"]
    )
    pairs = read_lines(revised.pairs_file)
    assert pairs
    assert (labelled.pairs, labelled.rejected) == (len(pairs), 0)
    assert labelled.judgments == 2 * len(pairs)
    for pair, label in zip(pairs, read_lines(tmp_path / "run" / "labels.jsonl"), strict=True):
        assert (label["id"], label["tags"]["revised"]) == (pair["id"], pair["tags"]["revised"])
        assert 0 <= label["labels"]["harmlessness"]["p_a"] <= 1
