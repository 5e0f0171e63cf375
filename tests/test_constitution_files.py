"""Files as they are met: odd layouts, links, pipes, full disks. An edit changes what is meant, or nothing at all."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif.constitution.edit import ConstitutionFile
from rlaif.constitution.spans import read_tree
from rlaif.errors import InputError
from tests.conftest import Cli

HEAD = "name: x\nobjectives:\n  h:\n    question: Q?\n    principles:\n"
RULE = "      - id: a\n        text: Prefer a.\n"
# Each holds an objective h with a principle a; every comment is a word of its own.
LAYOUTS = {
    "quoted keys": HEAD.replace("name", '"name"').replace("objectives", "'objectives'").replace("h:", '"h":') + RULE,
    "all in braces": '{name: x, objectives: {h: {question: "Q?", principles: [{id: a, text: Prefer a}]}}}',
    "braces over lines": "{\n  name: x, #one\n  objectives: { #two\n    h: {\n      question: 'Q?', #three\n"
    "      principles: [ #four\n        {id: a, text: Prefer a}, #five\n        {id: b, text: Prefer b} #six\n"
    "      ] #seven\n    },\n  }\n} #eight\n",
    "JSON": '{"name":"x","objectives":{"h":{"weight":1,"question":"Q?","principles":[{"id":"a","text":"Prefer a.",'
    '"tags":["t","u"]}]}},"aggregation":{"floors":{"h":0.1}}}\n',
    "dashes alone, a comment last": "name: x\nobjectives:\n  h:\n    question: Q?\n    principles:\n    -\n"
    "      id: a\n      text: Prefer a.\n    -\n      #first\n      id: b\n\n      text:\n        Prefer b.\n"
    "    #trailing\n",
    "a document with marks": f"%YAML 1.2\n--- #one\n{HEAD}{RULE}...\n",
    "blocks that keep their ends": f"{HEAD}      - id: a\n        text: |+\n          Prefer a.\n\n\naggregation:\n"
    "  floors: {}\n  by_tag:\n",
    "blocks with their depth": HEAD.replace("Q?", ">2\n        Q is?") + "      - id: a\n        text: |1-\n"
    "          Prefer a.\n",
    "tags": f"{HEAD.replace('Q?', '!!str Q?')}      - !!map\n        id: a\n        text: !!str >-\n"
    "          Prefer a\n          folded.\n",
    "carriage returns": (HEAD + RULE).replace("\n", "\r"),
    "lines of two ends": (HEAD + RULE + "        tags: [a,\n          b] #one\n").replace("\n", "\r\n"),
    "no end of the last line": (HEAD + RULE).removesuffix("\n"),
    "keys without values": f"{HEAD}{RULE}        cases:\n        tags:\n        source:   #none\naggregation:\n"
    "version:\n",
    "texts over lines": HEAD.replace("Q?", '"Q\n      is \\\n      this?\n\n      para"') + "      - id: a\n"
    "        text: 'Prefer\n          a\n\n          b'\n",
    "spaces before colons": "name : x\nobjectives :\n  h :\n    question : Q?\n    principles :\n      - id : a\n"
    "        text : Prefer a.\n        weight : 2 #w\n",
}
TEXTS = (
    *("Short.", "Prefer: this # not", "yes", "1.0", "two\nlines", "para\n\n  deeper\n", "long words " * 40),
    *('it\'s "both"', "- dash", "grün 日本", "ends:", "null", "b \\n s", "x" * 300, "[a", "{a", "%x", "@a", "? q"),
    *("! x", "& a", "* a", "| x", "> x", "\u00a0nb", "tail\n\n", "---", "a: b\nc: d", "'", '"', "`", "~", "0x1F"),
    *("12:30:45", "2020-01-01", "<<", "-", "--- a"),
)
KEYS: dict[str, Callable[[random.Random], Any]] = {
    **dict.fromkeys(
        ("name", "version", "description", "h.question", "a.text", "a.source"), lambda draw: draw.choice(TEXTS)
    ),
    **dict.fromkeys(
        ("h.weight", "a.weight", "aggregation.floors.h", "aggregation.by_tag.med.h"),
        lambda draw: draw.choice([0, 0.5, 2, 1e-7, 123456.125]),
    ),
    "a.tags": lambda draw: draw.choice([["a"], ["a", "b-c"], []]),
}
COMMENT = re.compile(r"#\w+")


def load(tmp_path: Path, text: str) -> ConstitutionFile:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode())
    return ConstitutionFile.load(path)


def bare(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def value_span(text: str, key: str) -> tuple[int, int] | None:
    """Where the value of a key stands in a text; `None` where the text does not give one."""
    path: dict[str, tuple[str | int, ...]] = {
        "h": ("objectives", "h"),
        "a": ("objectives", "h", "principles", 0),
    }
    first, *rest = key.split(".")
    node = read_tree(text)
    for part in (*path.get(first, (first,)), *rest):
        entry = node.entry(part)
        if entry is None:
            return None
        node = entry.value
    return node.start, node.end


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_value_changes_in_any_layout(layout: str, tmp_path: Path) -> None:
    # Every key is tried in some layouts, and every layout with some keys.
    for number in range(3):
        draw = random.Random(f"{layout} {number}")
        key = draw.choice(list(KEYS))
        file = load(tmp_path, LAYOUTS[layout])
        before, values = file.text, {each: file.value(each) for each in KEYS}
        wanted = KEYS[key](draw)
        span = value_span(before, key)
        file.set(key, wanted)
        assert {each: bare(file.value(each)) for each in KEYS} == {
            each: bare(wanted if each == key else value) for each, value in values.items()
        }
        assert COMMENT.findall(file.text) == COMMENT.findall(before)
        if span is not None and values[key] not in (None, "") and not isinstance(wanted, list):
            start, end = span
            assert file.text.startswith(before[:start])
            assert file.text.endswith(before[end:])


def test_a_comment_below_a_block_stays_out_of_what_is_added(tmp_path: Path) -> None:
    layout = LAYOUTS["dashes alone, a comment last"]
    file = load(tmp_path, layout)
    file.set("aggregation.method", "word " * 40 + "end")
    assert file.text.startswith(layout + "aggregation:\n  method: >-\n    word word")
    assert file.value("aggregation.method") == "word " * 40 + "end"


def test_a_last_line_without_an_end_gets_one_only_if_the_text_has_it(tmp_path: Path) -> None:
    layout = LAYOUTS["no end of the last line"]
    file = load(tmp_path, layout)
    file.set("a.source", "Us\nand you")
    assert file.text == f"{layout}\n        source: |-\n          Us\n          and you"
    file.set("a.source", "Us\nand you\n")
    file = load(tmp_path, layout)
    file.set("a.source", "Us\nand you\n")
    assert file.text == f"{layout}\n        source: |\n          Us\n          and you\n"


@pytest.mark.parametrize("text", ["a\u200bb", "bell \x07", "turned \u202e round", "a\u2028b"])
def test_a_character_that_nobody_sees_is_named(text: str, tmp_path: Path) -> None:
    file = load(tmp_path, HEAD + RULE)
    before = file.text
    calls: tuple[Callable[[], None], ...] = (
        lambda: file.set("a.text", text),
        lambda: file.set("a.tags", [text]),
        lambda: file.add_principle("h", "b", text),
        lambda: file.add_case("a", "p", text, "w"),
        lambda: file.add_objective("g", {"question": text}),
    )
    for call in calls:
        with pytest.raises(InputError, match=r"^.*c\.yaml: \w[\w.]*: the text holds the non-printing character U\+"):
            call()
    assert file.text == before


def test_a_pipe_is_not_waited_for(rlaif: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    done = rlaif("constitution", "set", tmp_path / "pipe.yaml", "version=1")
    assert (done.returncode, done.stderr) == (
        2,
        f"Error: {tmp_path / 'pipe.yaml'}: not a file; give a constitution's .yaml file.\n",
    )


def test_a_read_only_file_stays_as_it_is(rlaif: Cli, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(HEAD + RULE, encoding="utf-8")
    path.chmod(0o444)
    done = rlaif("constitution", "set", path, "version=9")
    assert done.returncode == 1
    assert done.stderr == f"Error: {path}: is read-only; nothing was written. Make it writable first (chmod u+w).\n"
    assert path.read_text(encoding="utf-8") == HEAD + RULE


def test_new_writes_through_a_link_and_never_over_a_broken_one(rlaif: Cli, tmp_path: Path) -> None:
    link, target = tmp_path / "link.yaml", tmp_path / "target.yaml"
    link.symlink_to(target)
    refused = rlaif("constitution", "new", link, "--yes")
    assert (refused.returncode, refused.stderr) == (
        2,
        f"Error: {link}: is a link that leads to no file; give another name, or remove the link.\n",
    )
    assert list(tmp_path.iterdir()) == [link]
    target.write_text("old", encoding="utf-8")
    assert rlaif("constitution", "new", link, "--yes", "--force").returncode == 0
    assert link.is_symlink()
    assert "name: link" in target.read_text(encoding="utf-8")
