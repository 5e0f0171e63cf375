"""Datasets to split, and runs to merge and to compare."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import rlaif as package
from rlaif.labeling.merge import MergeSummary, merge_runs
from rlaif.labeling.settings import DataSettings
from rlaif.labeling.shard import shard
from rlaif.store import Ledger
from tests.conftest import read_lines
from tests.stub_server import RunningStub

JUDGMENTS = (
    'SELECT pair_id, objective, "order", sample, principle, key, status, p_a, rating, choice_logprobs, '
    "rationale, error, prompt_tokens, completion_tokens, judge, constitution, template FROM judgments "
    "ORDER BY 1, 2, 3, 4"
)


def judgments(run: Path) -> list[tuple[object, ...]]:
    """Every judgment of a run, with all that is known of it."""
    with sqlite3.connect(run / "judgments.db") as db:
        return db.execute(JUDGMENTS).fetchall()


def manifest(run: Path) -> dict[str, Any]:
    """A run's manifest."""
    value: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return value


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def merge(runs: list[Path], out: Path, data: Path | None = None, **options: Any) -> MergeSummary:
    """Merge runs."""
    return merge_runs(runs, out, None if data is None else DataSettings(data=str(data), **options))


def label_parts(data: Path, count: int, folder: Path, **settings: Any) -> list[Path]:
    """Split a file, and label each part."""
    parts = shard(DataSettings(data=str(data)), count, folder / "parts").parts
    runs = [folder / f"run-{number}" for number in range(count)]
    for part, run in zip(parts, runs, strict=True):
        package.label(part.file, run, **settings)
    return runs


def options(stub: RunningStub, **more: Any) -> dict[str, Any]:
    """The settings that most of these runs have."""
    return {"base_url": stub.url, "template": "direct", "objectives": ["honesty"], **more}


def varied_rows(seed: int, count: int = 60) -> list[dict[str, Any]]:
    """Rows of every kind that pairs come in: shared prompts, equal rows, rows without an id, rows of no use."""
    draws = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        prompt = f"How  deep is lake {draws.randrange(count // 2)}?"
        if draws.random() < 0.3:
            # The same conversation, since only white space differs.
            prompt = prompt.replace("  ", " ")
        first, second = (f"{draws.randrange(9)} m. " + "ä " * draws.randrange(40) for _ in range(2))
        row: dict[str, Any] = {"id": f"row {number}", "prompt": prompt, "response_a": first, "response_b": second}
        shape = draws.randrange(10)
        if shape == 0:
            row = {"chosen": f"\n\nHuman: {prompt}\n\nAssistant: {first}x"}
            row["rejected"] = f"\n\nHuman: {prompt}\n\nAssistant: {second}y"
        elif shape == 1:
            row["prompt"] = [{"role": "system", "content": ""}, {"role": "human", "content": prompt}]
        elif shape == 2:
            row["tags"] = {"labels": 1, "share": draws.random(), "big": 2**60, "none": None, "text": "„x“\u2028"}
        elif shape == 3:
            row["response_a"] = None
        elif shape == 4:
            row["id"] = "row 0"
        if draws.random() < 0.4:
            row.pop("id", None)
        rows.append(row)
        if draws.random() < 0.1:
            # Equal rows without an id are told apart by their number.
            rows.append({name: value for name, value in row.items() if name != "id"})
            rows.append(dict(rows[-1]))
    return rows


def large_run(template: Path, out: Path, first: int, count: int) -> None:
    """A finished run like another one, with `count` pairs that are numbered from `first`; no judge is asked."""
    out.mkdir()
    (line, *_) = read_lines(template / "labels.jsonl")
    with closing(sqlite3.connect(template / "judgments.db")) as db:
        question = db.execute("SELECT * FROM plan LIMIT 1").fetchone()
        answer = db.execute("SELECT * FROM completions LIMIT 1").fetchone()
    ids = [f"made-{number}" for number in range(first, first + count)]
    write = "".join(json.dumps({**line, "id": name}, separators=(",", ":"), ensure_ascii=False) + "\n" for name in ids)
    (out / "labels.jsonl").write_text(write)
    (out / "rejects.jsonl").touch()
    shutil.copy(template / "manifest.json", out)
    Ledger(out / "judgments.db").close()
    with closing(sqlite3.connect(out / "judgments.db")) as db:
        rows = [(name, *question[1:4], f"{name:0>64}", *question[5:]) for name in ids]
        db.executemany("INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        answers = [(f"{name:0>64}", "Because. " * 40, *answer[2:]) for name in ids]
        db.executemany(f"INSERT INTO completions VALUES ({','.join('?' * 13)})", answers)
        db.commit()
