"""Scenes: a conversation of the small world, and the cores of answers that one could give in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rlaif.starter.world import World, lower_first, texts, upper_first
from rlaif.types import Message

Marks = Mapping[str, bool | None]


@dataclass(frozen=True)
class Core:
    """What an answer says, before style: its sentences, and where they differ from what is usual.

    Attributes:
        marks: families that are present, or undecidable (`None`); families not named are absent.
        styled: whether sentences of style may be added.
        language: what it is written in.
    """

    sentences: tuple[str, ...]
    marks: Marks = field(default_factory=dict)
    styled: bool = True
    language: str = "English"


@dataclass(frozen=True)
class Scene:
    """A conversation that ends with a person's turn.

    Attributes:
        request: a language, `list` or `plain` where one is asked for.
    """

    kind: str
    prompt: tuple[Message, ...]
    cores: Mapping[str, Callable[[], Core]]
    slots: dict[str, str]
    request: str = ""

    @property
    def wants_list(self) -> bool | None:
        """Whether a list is asked for, or none."""
        return {"list": True, "plain": False}.get(self.request)


# It is open whether the question is answered, and whether the topic is kept.
_OPEN: dict[str, bool | None] = {"answers": None, "drift": None}
_ANSWERED: dict[str, bool | None] = {"answers": True, "drift": None}


def make_scene(world: World, kind: str) -> Scene:
    """Draw a scene of one of `KINDS`."""
    return _MAKERS[kind](world)


def _prompt(kind: str) -> list[str]:
    found: list[str] = texts()["prompts"][kind]
    return found


def _core(name: str) -> list[str]:
    found: list[str] = texts()["cores"][name]
    return found


def _turns(world: World, *texts_of_turns: str) -> tuple[Message, ...]:
    """Alternating turns, the last one the person's; some conversations begin with a greeting."""
    turns = list(texts_of_turns)
    if world.rng.random() < 0.12:
        turns = [world.rng.choice(_prompt("greeting")), world.rng.choice(_prompt("greeting_reply")), *turns]
    return tuple(Message(role="user" if n % 2 == 0 else "assistant", content=text) for n, text in enumerate(turns))


def _noted(world: World, note: str, question: str) -> tuple[Message, ...]:
    if world.rng.random() < 0.3:
        return _turns(world, note, world.rng.choice(_prompt("note_reply")), question)
    return _turns(world, f"{note} {question}" if world.rng.random() < 0.5 else f"{note}\n{question}")


def _refusal(world: World, slots: dict[str, str]) -> Core:
    return Core((world.one_of(_core("refuse"), slots),), {"overrefusal": True, "drift": None})


def _advice_about(world: World, slots: dict[str, str], most: int = 5) -> tuple[str, ...]:
    return tuple(world.some_of(_core("advice"), world.rng.choice((1, 2, 2, 3, 3, 4, most)), slots))


@dataclass(frozen=True)
class _Fact:
    """One property of a thing in a place, its true value and a wrong one."""

    it: str
    of: Mapping[str, str]
    true: str
    wrong: str

    def says(self, value: str) -> str:
        return f"{self.it} {self.of['fact'].format(v=value)}"

    def question(self) -> str:
        return self.of["ask"].format(it=self.it) + "?"

    def answer(self, world: World, value: str, opener: str = "") -> str:
        sentence = self.says(value) if world.rng.random() < 0.5 else self.of["short"].format(v=value)
        return f"{opener}{lower_first(sentence) if opener else upper_first(sentence)}."


def _fact(world: World, slots: dict[str, str], but: str = "") -> _Fact:
    of = world.rng.choice([one for one in texts()["properties"] if one["fact"] != but])
    true = world.other(of["of"], slots["place"])
    return _Fact(f"the {slots['thing']} in {slots['place']}", of, true, world.other(of["of"], true, slots["place"]))


def _note(world: World, slots: dict[str, str]) -> tuple[_Fact, str]:
    """A fact, and the text of a note that holds it; some notes hold a second one."""
    fact = _fact(world, slots)
    facts = [upper_first(fact.says(fact.true)) + "."]
    if world.rng.random() < 0.35:
        second = _fact(world, slots, fact.of["fact"])
        facts.append("It " + second.of["fact"].format(v=second.true) + ".")
    return fact, world.one_of(_prompt("note"), {"facts": " ".join(facts)})


def _place_slots(world: World) -> dict[str, str]:
    return {"thing": world.entity("thing"), "place": world.entity("place")}


def _make_fact(world: World) -> Scene:
    slots = _place_slots(world)
    fact, note = _note(world, slots)

    def off() -> Core:
        if world.rng.random() < 0.5:
            return Core(_advice_about(world, {}), {"drift": True})
        other = {"thing": world.other("thing", slots["thing"]), "place": world.other("place", slots["place"])}
        lines = [_fact(world, other) for _ in range(world.rng.choice((1, 2)))]
        return Core(tuple(upper_first(one.says(one.true)) + "." for one in lines), {"drift": True})

    cores = {
        "right": lambda: Core((fact.answer(world, fact.true),), {"answers": True}),
        "wrong": lambda: Core((fact.answer(world, fact.wrong),), {"answers": None, "contradiction": True}),
        "evade": lambda: Core(tuple(world.some_of(_core("evade_fact"), world.rng.choice((1, 2)), slots))),
        "off": off,
        "refuse": lambda: _refusal(world, slots),
    }
    return Scene("fact", _noted(world, note, fact.question()), cores, slots)


def _make_advice(world: World) -> Scene:
    slots = {"topic": world.entity("topic")}
    chance = world.rng.random()
    request = "list" if chance < 0.2 else "plain" if chance < 0.4 else ""
    extra = " " + world.rng.choice(_prompt(f"format_{request}")) if request else ""
    question = world.one_of(_prompt("advice"), slots) + extra
    cores = {
        "right": lambda: Core(_advice_about(world, slots), {"answers": True}),
        "evade": lambda: Core(tuple(world.some_of(_core("evade_advice"), world.rng.choice((1, 2)), slots))),
        "off": lambda: Core(_advice_about(world, {"topic": world.other("topic", slots["topic"])}), {"drift": True}),
        "refuse": lambda: _refusal(world, slots),
    }
    return Scene("advice", _turns(world, question), cores, slots, request)


def _make_language(world: World) -> Scene:
    slots = {"topic": world.entity("topic")}
    spoken: dict[str, list[str]] = texts()["languages"]
    asked = world.rng.choice((*spoken, "English"))
    line = world.rng.choice(_prompt("language")).format(language=asked)
    question = world.one_of(_prompt("advice"), slots)

    def answer(language: str) -> Core:
        right = {"language": language == asked, **_OPEN}
        if language == "English":
            return Core(_advice_about(world, slots), right)
        lines = world.some_of(spoken[language], world.rng.randint(1, 4), {})
        return Core(tuple(lines), right, styled=False, language=language)

    others = [language for language in (*spoken, "English") if language != asked]
    cores = {"right": lambda: answer(asked), "other": lambda: answer(world.rng.choice(others))}
    return Scene("language", _turns(world, f"{question} {line}"), cores, slots, asked)


def _make_harm(world: World) -> Scene:
    slots = {"person": world.entity("person"), "valuable": world.entity("valuable")}

    def refuse() -> Core:
        lines = [world.one_of(_core("refuse"), slots)]
        if world.rng.random() < 0.4:
            lines.append(world.one_of(_core("redirect"), slots))
        return Core(tuple(lines), _OPEN)

    def comply() -> Core:
        lines = world.some_of(_core("comply"), world.rng.choice((1, 2, 3)), slots)
        return Core(tuple(lines), {"harm": True, **_OPEN})

    cores = {"refuse": refuse, "comply": comply}
    return Scene("harm", _turns(world, world.one_of(_prompt("harm"), slots)), cores, slots)


def _make_guard(world: World) -> Scene:
    slots = {"person": world.entity("person"), "valuable": world.entity("valuable")}

    def right() -> Core:
        lines = world.some_of(_core("guard"), world.rng.choice((1, 2, 3, 4)), slots)
        return Core(tuple(lines), {"answers": True})

    cores = {"right": right, "refuse": lambda: _refusal(world, slots)}
    return Scene("guard", _turns(world, world.one_of(_prompt("guard"), slots)), cores, slots)


def _simple(kind: str, *names: str, most: int = 1, rest: Marks = _ANSWERED, **marks: Marks) -> Callable[[World], Scene]:
    """A scene whose answers need nothing but its slots."""

    def make(world: World) -> Scene:
        slots = {name: world.entity(name) for name in ("topic", "thing", "person", "place", "event")}

        def core(name: str) -> Callable[[], Core]:
            return lambda: Core(
                tuple(world.some_of(_core(name), world.rng.randint(1, most), slots)), {**rest, **marks.get(name, {})}
            )

        return Scene(
            kind, _turns(world, world.one_of(_prompt(kind), slots)), {name: core(name) for name in names}, slots
        )

    return make


def _make_private(world: World) -> Scene:
    slots = {name: world.entity(name) for name in ("event", "owner", "number", "street", "phone", "day", "place")}
    slots["number2"] = world.other("number", slots["number"])
    slots["street2"] = world.other("street", slots["street"])
    what = world.rng.choice(("address", "phone"))
    asked = [world.fill(texts()["prompts"][line], slots) for line in (f"private_{what}", "private_task")]

    def notice(kind: str) -> Core:
        lines = world.some_of(_core("notice"), world.rng.randint(1, 3), slots)
        if kind != "bare":
            lines.insert(world.rng.randint(0, len(lines)), world.one_of(_core(kind), slots))
        return Core(tuple(lines), {"privacy": kind.startswith("reveal"), **_ANSWERED})

    kinds = (f"reveal_{what}", "bare", "public_address")
    cores = {name: (lambda name=name: notice(name)) for name in kinds}
    return Scene("private", _turns(world, " ".join(asked)), cores, slots)


def _make_mistake(world: World) -> Scene:
    slots = _place_slots(world)
    fact, note = _note(world, slots)
    first = fact.answer(world, fact.wrong)
    turns = _turns(world, f"{note} {fact.question()}", first, world.rng.choice(_prompt("mistake")))

    def answer(opening: str, value: str) -> Core:
        lines = [fact.answer(world, value)]
        if opening:
            lines.insert(0, world.one_of(_core(opening), slots))
        marks = {"mistake": opening == "admit", "contradiction": value != fact.true, **_OPEN}
        return Core(tuple(lines), marks)

    cores = {
        "admit": lambda: answer("admit", fact.true),
        "deny": lambda: answer("deny", fact.wrong),
        "correct": lambda: answer("", fact.true),
        "stuck": lambda: answer("", fact.wrong),
        "admit wrongly": lambda: answer("admit", fact.wrong),
    }
    return Scene("mistake", turns, cores, slots)


def _make_claim(world: World) -> Scene:
    slots = _place_slots(world)
    fact, note = _note(world, slots)
    claimed = fact.wrong if world.rng.random() < 0.7 else fact.true
    denied = fact.true if claimed == fact.wrong else fact.wrong
    question = world.one_of(_prompt("claim"), {"claim": fact.says(claimed)})

    def answer(value: str) -> Core:
        opener = "Yes, " if value == claimed else "No, "
        wrong = value != fact.true
        return Core(
            (fact.answer(world, value, opener),),
            {"sycophancy": wrong and value == claimed, "contradiction": wrong, **_OPEN},
        )

    cores = {"agree": lambda: answer(claimed), "correct": lambda: answer(denied)}
    return Scene("claim", _noted(world, note, question), cores, slots)


_MAKERS: Mapping[str, Callable[[World], Scene]] = {
    "fact": _make_fact,
    "advice": _make_advice,
    "language": _make_language,
    "harm": _make_harm,
    "guard": _make_guard,
    "future": _simple("future", "future_yes", "future_no"),
    "unclear": _simple("unclear", "clarify", "guess", rest=_OPEN, clarify={"clarify": True}),
    "feeling": _simple("feeling", "feeling", most=3),
    "private": _make_private,
    "risk": _simple("risk", "risk", most=4),
    "mistake": _make_mistake,
    "claim": _make_claim,
}
KINDS = tuple(_MAKERS)
