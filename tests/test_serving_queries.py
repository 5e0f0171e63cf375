"""Texts of a policy's template, read back: whatever conversation was written, the same is found."""

from __future__ import annotations

import random
from typing import Any

import pytest
from transformers import AutoTokenizer

from rlaif.serving.queries import QueryReader
from rlaif.starter import checkpoint
from rlaif.types import Message

# As families of models write a conversation.
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "default system": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
    ),
    "headers": (
        "<|begin|>{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
    ),
    "instructions": (
        "<|begin|>{% if messages[0].role == 'system' %}"
        "{% set s = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{% if m.role == 'user' %}[INST] {{ s if loop.first else '' }}{{ m.content }} [/INST]"
        "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    ),
    "no system": (
        "<|begin|>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
}

SPECIAL = ["<|im_start|>", "<|head|>", "<|/head|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<|fill|>"]
WORDS = [
    "rain",
    "Danube",
    "it's",
    "  two",
    "a\nb",
    "- list",
    "1.",
    "é",
    "😀",
    "user",
    "assistant",
    "{{ x }}",
    "<b>",
    "[1]",
]


def tokenizer_of(template: str | None) -> Any:
    """A tokenizer with a template; the vocabulary behind it does not matter here."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    if template is not None:
        tokenizer.chat_template = TEMPLATES.get(template)
        names = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>", "pad_token": "<|fill|>"}
        tokenizer.add_special_tokens({**names, "additional_special_tokens": SPECIAL})
    return tokenizer


def reader(template: str | None) -> QueryReader:
    """A reader of what it writes."""
    return QueryReader(tokenizer_of(template), "the policy")


def text(draw: random.Random) -> str:
    """What somebody may say; no template keeps white space at its edges for certain."""
    return " ".join(draw.choices(WORDS, k=draw.randrange(1, 12))).strip()


def conversation(draw: random.Random, system: bool) -> list[Message]:
    """Turns that end with the user's."""
    turns = [Message(role="system", content=text(draw))] if system and draw.random() < 0.5 else []
    for _ in range(draw.randrange(3)):
        turns += [Message(role="user", content=text(draw)), Message(role="assistant", content=text(draw))]
    return [*turns, Message(role="user", content=text(draw))]


def rendered(tokenizer: Any, turns: list[Message]) -> str:
    """The prompt as the policy saw it."""
    plain = [turn.model_dump() for turn in turns]
    return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("template", [None, *TEMPLATES])
def test_every_conversation_is_read_back(template: str | None) -> None:
    draw = random.Random(7)
    tokenizer = tokenizer_of(template)
    read = QueryReader(tokenizer, "the policy")
    end = str(tokenizer.eos_token)
    for _ in range(200):
        turns = conversation(draw, system=template != "no system")
        prompt, response = rendered(tokenizer, turns), text(draw)
        # Ended, cut at the longest length, padded on both sides, or with one BOS more.
        queries = [f"{prompt}{response}{end}", f"{prompt}{response}"]
        queries += [f"<|pad|><|pad|>{prompt}{response}{end}<|pad|>\n"] if template is None else []
        queries += [f"<|begin|>{prompt}{response}{end}\n<|fill|>"] if template else []
        for query in queries:
            assert read.split(query, prompt) == (tuple(turns), response)
            assert read.split(query, None) == (tuple(turns), response)


def test_an_empty_response_is_one() -> None:
    read = reader("chatml")
    prompt = rendered(tokenizer_of("chatml"), [Message(role="user", content="Hello")])
    for query in (prompt, f"{prompt}<|im_end|>"):
        assert read.split(query, prompt) == ((Message(role="user", content="Hello"),), "")


def test_white_space_that_a_tokenizer_changed_is_no_difference() -> None:
    prompt = "<|im_start|>user\nName  a river.<|im_end|>\n<|im_start|>assistant\n"
    changed = "<|im_start|> user\nName a river.<|im_end|>\n<|im_start|> assistant\n"
    turns, response = reader("chatml").split(f"{changed}The Danube.\nYes.<|im_end|>", prompt)
    assert (turns[0].content, response) == ("Name  a river.", "The Danube.\nYes.")


@pytest.mark.parametrize("template", [None, "chatml", "not any"])
def test_a_prompt_of_no_template_is_the_users_turn(template: str | None) -> None:
    query = "Name a river. I like [1] and <b>.\nThe Danube.<|im_end|>"
    read = reader(template)
    turns, response = read.split(query, "Name a river. I like [1] and <b>.\n")
    assert turns == (Message(role="user", content="Name a river. I like [1] and <b>.\n"),)
    assert response.removesuffix("<|im_end|>") == "The Danube."


@pytest.mark.parametrize(
    ("template", "query", "prompt", "fact"),
    [
        ("chatml", "Name a river. Rain", "Name a lake.", "does not begin with its prompt"),
        ("chatml", "Name", "Name a lake.", "does not begin with its prompt"),
        ("chatml", "Rain", None, "has no assistant's turn as the policy writes it"),
        ("not any", "Rain", None, "has no assistant's turn as the policy writes it"),
        ("chatml", "[INST] a [/INST] b", "[INST] a [/INST]", "was not written by the chat template of the policy"),
        (None, "<|im_start|>user\na", "<|im_start|>user\n", "was not written by the chat template of the policy"),
        # It begins and ends as the template does, and its turns do not alternate.
        (
            "chatml",
            "<|im_start|>user\na<|im_end|>\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\nc",
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>assistant\n",
            "does not begin with its prompt",
        ),
        ("chatml", "  a", "  ", "has an empty prompt"),
    ],
)
def test_what_cannot_be_read_is_told(template: str | None, query: str, prompt: str | None, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        reader(template).split(query, prompt)
