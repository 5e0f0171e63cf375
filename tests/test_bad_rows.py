"""A thousand rows with every kind of fault: each bad one is named, each good one is there once, nothing raises."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rlaif.constitution import load_constitution
from rlaif.data.pairs import Reject, read_pairs, read_prompts
from rlaif.data.sources import open_source
from rlaif.labeling.write import write_labels
from rlaif.store import Ledger
from rlaif.types import Provenance

ROWS = 1000


def row(number: int, **changed: Any) -> dict[str, Any]:
    return {"id": f"row-{number}", "prompt": f"Question {number}?", "response_a": "Yes.", "response_b": "No."} | changed


def without(number: int, *names: str) -> dict[str, Any]:
    return {name: value for name, value in row(number).items() if name not in names}


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def with_raw(number: int, name: str, raw: str) -> bytes:
    """A row in which `name` holds the JSON text `raw`."""
    return dumped(row(number, **{name: "HERE"})).replace(b'"HERE"', raw.encode())


# Each makes the bytes of one bad line; its reason must hold the text beside it.
FAULTS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "no response": (
        lambda n: dumped(without(n, "response_b")),
        "no response_b; the row has the columns id, prompt, resp",
    ),
    "no responses": (lambda n: dumped(without(n, "response_a", "response_b")), "no response_a and response_b; the row"),
    "no prompt": (lambda n: dumped(without(n, "prompt")), "no prompt; the row has the columns id, response_a"),
    "response is null": (lambda n: dumped(row(n, response_a=None)), "no response_a"),
    "response is a number": (lambda n: dumped(row(n, response_a=7)), "response_a is a number; expected a text"),
    "response is a list": (lambda n: dumped(row(n, response_b=["No."])), "response_b is a list; expected a text"),
    "prompt is an object": (
        lambda n: dumped(row(n, prompt={"text": "x"})),
        "prompt is an object; expected a text or a",
    ),
    "id is a list": (lambda n: dumped(row(n, id=[n])), "id is a list; expected a text or a whole number"),
    "id is empty": (lambda n: dumped(row(n, id="")), "id is empty"),
    "NUL": (lambda n: dumped(row(n, response_a="Yes\x00.")), "response_a holds a NUL character at position 4"),
    "bytes that are not UTF-8": (lambda n: dumped(row(n)).replace(b"Yes", b"Y\xff\xfes"), "invalid UTF-8 at byte "),
    "lone surrogate": (
        lambda n: dumped(row(n, response_b="No\ud83d")),
        "response_b holds a lone surrogate at position 3",
    ),
    "lone surrogate in a column's name": (lambda n: dumped({"\ud83d": n}), "no response_a and response_b; the row has"),
    "100,000 brackets": (lambda n: with_raw(n, "response_a", "[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "900 brackets": (lambda n: with_raw(n, "tags", "[" * 900 + "]" * 900), "tags is a list that holds more than texts"),
    "NaN": (lambda n: with_raw(n, "response_a", "NaN"), "NaN is not JSON"),
    "infinity": (lambda n: with_raw(n, "tags", "-Infinity"), "-Infinity is not JSON"),
    "number out of range": (lambda n: with_raw(n, "tags", '{"size": 1e999}'), "tags.size is not a number under 2^63"),
    "not an object": (lambda n: dumped([row(n)]), "the row is a list; expected an object with columns"),
    "only a text": (lambda n: dumped("Yes."), "the row is a text; expected an object with columns"),
    "null": (lambda n: b"null", "the row is missing; expected an object with columns"),
    "cut short": (lambda n: dumped(row(n))[:-9], "invalid JSON at character "),
    "no JSON": (lambda n: b"Yes, No", "invalid JSON at character 1"),
    "two values": (lambda n: dumped(row(n)) * 2, "invalid JSON at character "),
    "huge whole number": (lambda n: with_raw(n, "response_a", "9" * 10_000), "response_a is a number; expected a text"),
    "huge id": (lambda n: with_raw(n, "id", "9" * 10_000), "id is a number; expected a text or a whole number"),
    "large tag": (lambda n: dumped(row(n, tags={"size": 2**63})), "tags.size is not a number under 2^63"),
    "nested tags": (lambda n: dumped(row(n, tags={"a": {"b": 1}})), "tags.a is an object; expected a plain value"),
    "tags in a list of lists": (lambda n: dumped(row(n, tags=[["x"]])), "tags is a list that holds more than texts"),
    "empty prompt": (lambda n: dumped(row(n, prompt="")), "prompt is empty"),
    "blank prompt": (lambda n: dumped(row(n, prompt=" \n")), "prompt is empty"),
    "prompt without messages": (
        lambda n: dumped(row(n, prompt=[])),
        "prompt is an empty list; expected a text or a list",
    ),
    "unknown role": (
        lambda n: dumped(row(n, prompt=[{"role": "wizard", "content": "Hi"}])),
        "prompt: message 1 has role 'wizard'; known: user, assistant",
    ),
    "nested role": (
        lambda n: with_raw(n, "prompt", '[{"content": "Hi", "role": ' + "[" * 900 + "]" * 900 + "}]"),
        "prompt: message 1 has role '[[[",
    ),
    "message without content": (
        lambda n: dumped(row(n, prompt=[{"role": "user", "content": "Hi"}, {"role": "user"}])),
        "prompt: message 2 needs a role and a content",
    ),
    "message with an image": (
        lambda n: dumped(row(n, prompt=[{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}])),
        "prompt: message 1 has parts that are not text",
    ),
    "chosen without rejected": (
        lambda n: dumped({"prompt": "p", "chosen": "c"}),
        "no rejected; the row has the columns",
    ),
    "chosen of another kind": (
        lambda n: dumped({"prompt": "p", "chosen": "c", "rejected": [{"role": "assistant", "content": "r"}]}),
        "chosen is a text and rejected is a list; expected the same kind",
    ),
    "chosen without a prompt": (
        lambda n: dumped({"chosen": "c", "rejected": "r"}),
        "chosen is a text without a prompt",
    ),
    "turns that do not alternate": (
        lambda n: dumped({"chosen": "\n\nHuman: a\n\nHuman: b", "rejected": "\n\nHuman: a\n\nAssistant: b"}),
        "chosen: Human and Assistant turns do not alternate",
    ),
    "no last reply": (
        lambda n: dumped({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: "}),
        "rejected has no last reply from the assistant",
    ),
    "two conversations": (
        lambda n: dumped({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: b"}),
        "chosen and rejected differ before the last turn",
    ),
    "duplicate id": (lambda n: dumped(row(n, id="row-1")), "duplicate id 'row-1', first on line 1"),
}


def lines() -> tuple[list[bytes], dict[int, str]]:
    """A thousand lines, and by line the fault of each that is bad; every third is bad or blank."""
    kinds = [*FAULTS, "blank"]
    made, faults = [], {}
    for number in range(1, ROWS + 1):
        if number % 3:
            # One good row is large: size alone is no fault.
            made.append(dumped(row(number, response_b="x" * 5_000_000) if number == 500 else row(number)))
            continue
        kind = kinds[(number // 3 - 1) % len(kinds)]
        if kind == "blank":
            made.append(b"  \t")
        else:
            made.append(FAULTS[kind][0](number))
            faults[number] = kind
    return made, faults


def not_json(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_thousand_rows(tmp_path: Path, ending: str) -> None:
    made, faults = lines()
    assert set(faults.values()) == set(FAULTS), "every kind of fault is there"
    (tmp_path / "p.jsonl").write_bytes(ending.encode().join(made))
    rows = list(read_pairs(open_source(str(tmp_path / "p.jsonl")), {}))

    good = [number for number in range(1, ROWS + 1) if number % 3]
    pairs = dict(found for found in rows if not isinstance(found, Reject))
    assert [found[1].id for found in rows if not isinstance(found, Reject)] == [f"row-{number}" for number in good]
    assert list(pairs) == good
    assert len(pairs[500].response_b) == 5_000_000

    rejects = [found for found in rows if isinstance(found, Reject)]
    assert [reject.line for reject in rejects] == list(faults)
    wrong = {
        (reject.line, faults[reject.line], reject.reason[:200])
        for reject in rejects
        if not reject.reason.startswith(FAULTS[faults[reject.line]][1])
    }
    assert wrong == set()


def test_rejects_are_written_as_json(tmp_path: Path) -> None:
    made, faults = lines()
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(b"\n".join(made), compresslevel=1))
    rejects = [row for row in read_pairs(open_source(str(tmp_path / "p.jsonl.gz")), {}) if isinstance(row, Reject)]
    ledger = Ledger(tmp_path / "judgments.db")
    provenance = Provenance(judge="j", constitution="c", template="t", rlaif="0")
    constitution = load_constitution("hhh")
    written = write_labels(rejects, ledger, constitution, tuple(constitution.objectives), provenance, tmp_path)
    ledger.close()
    assert (written.pairs, written.rejected) == (0, len(faults))
    text = (tmp_path / "rejects.jsonl").read_bytes().decode("utf-8")
    values = [json.loads(line, parse_constant=not_json) for line in text.splitlines()]
    assert [(value["line"], value["reason"]) for value in values] == [(each.line, each.reason) for each in rejects]
    assert all(list(value) == ["line", "reason", "row"] for value in values)
    by_line = {value["line"]: value["row"] for value in values}
    plain = next(line for line, kind in faults.items() if kind == "response is a number")
    assert by_line[plain] == row(plain, response_a=7)
    # A row of megabytes is shown in part.
    assert max(len(line) for line in text.splitlines()) < 20_000


def test_prompts_with_the_same_faults(tmp_path: Path) -> None:
    made, faults = lines()
    (tmp_path / "p.jsonl").write_bytes(b"\n".join(made))
    rows = list(read_prompts(open_source(str(tmp_path / "p.jsonl")), {}))
    # A prompt is usable whatever is wrong with the responses beside it.
    of_prompts = {kind for kind in FAULTS if "prompt" in kind or "message" in kind or "role" in kind} - {
        "chosen without a prompt"
    }
    rejected = {faults[found.line] for found in rows if isinstance(found, Reject)}
    assert of_prompts <= rejected
    assert "response is a number" not in rejected
    assert len([found for found in rows if not isinstance(found, Reject)]) > ROWS * 2 / 3
