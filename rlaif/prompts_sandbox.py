"""The sandbox that templates run in: nothing outside can be reached, and no template runs or grows without bound.

jinja2's sandbox keeps a template from files, modules and private attributes. It bounds one `range`, but not loops in
loops, powers, paddings or texts that double. Here each rendering has a budget of rounds and of characters, far above
what a prompt takes and in proportion to what is quoted in it. A template that spends it fails, with the line.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, TemplateAssertionError, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.visitor import NodeTransformer

ROUNDS = 100_000
CHARACTERS = 1_000_000
# For each character that is quoted, so many may be shown or made on the way.
_SHARE = 20
_BITS = 4096
# A text of so many characters takes as long to handle as a round of a loop.
_PER_ROUND = 100
# An entry of a list takes about as long to handle as so many characters.
_ENTRY = 10
_WIDE = re.compile(r"\d{5}|\*")


class TooMuch(Exception):
    """A template goes round too often, or makes too much text; the message is the fact and the fix."""


class Sandbox(ImmutableSandboxedEnvironment):
    """A jinja2 environment for prompts: strict, bounded, and without chance, since the same pair is to give the same
    prompt."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            finalize=self._shown,
        )
        self._local = threading.local()
        del self.globals["lipsum"], self.filters["random"]
        self.filters = {name: self._bounded(function) for name, function in self.filters.items()}
        self.filters |= {"rounds": self._rounds, "fitting": self._fitting}

    @contextmanager
    def rendering(self, values: Mapping[str, Any]) -> Iterator[None]:
        """Open the budget of one rendering of `values`; a thread has one at a time, and compiling has none."""
        given = sum(_size(value, 10**12) for value in values.values() if not callable(value))
        self._local.rounds = ROUNDS + _SHARE * given
        self._local.most = self._local.left = CHARACTERS + _SHARE * given
        try:
            yield
        finally:
            vars(self._local).clear()

    def call(__self: Sandbox, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call what a template calls, at the cost of a round; jinja2's own signature."""
        if __obj is not safe_range:
            __self._weigh([getattr(__obj, "__self__", None), *args, *kwargs.values()])
        result = super().call(__context, __obj, *args, **kwargs)
        __self._spend(len(result) if isinstance(result, range) else 1)
        return __self._fitting(result)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Work out `+`, `*`, `**` and `%` if the result cannot be huge."""
        self._spend(1)
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise TooMuch("a text is padded to a width of 10,000 or more; use a smaller one")
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            fits = left.bit_length() * abs(right) <= _BITS
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            fits = left.bit_length() + right.bit_length() <= _BITS
        elif operator == "*" and isinstance(left, int) != isinstance(right, int):
            number, other = (left, right) if isinstance(left, int) else (right, left)
            fits = number * max(self._length(other), 1) <= self._most
        else:
            fits = operator == "%" or self._length(left) + self._length(right) <= self._most
        if not fits:
            raise TooMuch(f"the result of {operator} is too large; a prompt needs no such number or text")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`"{:>9}".format`, unless its width is huge."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _WIDE.search(value.__self__):
            raise TooMuch("a text is padded to a width of 10,000 or more; use a smaller one")
        return wrapped

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Counted().visit(source), *args, **kwargs)

    @property
    def _most(self) -> int:
        return getattr(self._local, "most", CHARACTERS)

    def _spend(self, rounds: int) -> None:
        if hasattr(self._local, "rounds"):
            self._local.rounds -= rounds
            if self._local.rounds < 0:
                raise TooMuch(f"over {ROUNDS:,} rounds of loops and calls; a prompt needs few, so loop over less")

    def _length(self, value: Any) -> int:
        size = _size(value, self._most)
        self._spend(size // _PER_ROUND)
        return size

    def _fitting(self, value: Any) -> Any:
        """The value, unless it is too large: what doubles is caught before it is huge."""
        if self._length(value) > self._most:
            raise TooMuch(f"a text or list of over {self._most:,} characters; make it shorter")
        return value

    def _shown(self, value: Any) -> Any:
        """Take what is shown off the budget."""
        if hasattr(self._local, "rounds"):
            self._spend(1)
            self._local.left -= self._length(value)
            if self._local.left < 0:
                raise TooMuch(f"over {self._most:,} characters are shown; no judge reads so long a prompt")
        return value

    def _weigh(self, values: Iterable[Any]) -> None:
        """Refuse arguments that make something huge of something small: large widths, and two long texts at once."""
        sizes = [1, 1]
        for value in values:
            if isinstance(value, int) and abs(value) > self._most:
                raise TooMuch(f"{str(value)[:20]} is too large a number for a prompt; use a smaller one")
            sizes.append(self._length(value))
        one, other = sorted(sizes)[-2:]
        if one * other > 100 * self._most:
            raise TooMuch("two long texts or lists are put into one another; make one of them shorter")

    def _bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # Some take the environment or the context first, and say so by an attribute, which is kept.
        first = 1 if hasattr(function, "jinja_pass_arg") else 0
        pads = getattr(function, "__name__", "") == "do_format"

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._spend(1)
            self._weigh([*args[first:], *kwargs.values()])
            if pads and _WIDE.search(str(args[first])):
                raise TooMuch("a text is padded to a width of 10,000 or more; use a smaller one")
            return self._fitting(function(*args, **kwargs))

        return bounded

    def _rounds(self, values: Iterable[Any], cost: int) -> Iterator[Any]:
        """Count the rounds of a loop, each by how much text stands in it."""
        for value in values:
            self._spend(cost)
            yield value


class _Counted(NodeTransformer):
    """Puts the counting filters around the values of every loop, and around all that puts values together."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """A loop; one that calls itself is refused, since its rounds cannot be counted."""
        if node.recursive:
            raise TemplateAssertionError("recursive loops are not for prompts", node.lineno)
        self.generic_visit(node)
        shown = sum(len(each.data) for each in node.find_all(nodes.TemplateData))
        node.iter = _filtered(node.iter, "rounds", nodes.Const(1 + shown // _PER_ROUND))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """`a ~ b`."""
        return self._whole(node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        """`[a, b]`."""
        return self._whole(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        """`{"a": b}`."""
        return self._whole(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        """`(a, b)`, but for the names that a loop or a set fills."""
        return self._whole(node) if node.ctx == "load" else node

    def _whole(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "fitting")


def _filtered(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    made = nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
    assert node.environment is not None
    made.set_environment(node.environment)
    return made


def _size(value: Any, most: int) -> int:
    """Characters of a value, to all depths, an entry of a list as ten; counted up to `most`."""
    size = 0
    stack = [value]
    while stack and size <= most:
        held = stack.pop()
        if isinstance(held, str):
            size += len(held)
        elif isinstance(held, (list, tuple, set, frozenset)):
            size += _ENTRY * len(held)
            stack += held
        elif isinstance(held, Mapping):
            size += _ENTRY * len(held)
            stack += [*held, *held.values()]
        elif isinstance(held, range):
            size += _ENTRY * len(held)
        else:
            # A turn of the conversation holds a text.
            content = getattr(held, "content", "")
            size += len(content) if isinstance(content, str) else 1
    return size
