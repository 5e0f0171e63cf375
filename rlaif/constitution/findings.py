"""All that can be wrong with a constitution: the code of each finding, how severe it is and what it means."""

from __future__ import annotations

from rlaif.findings import Finding, Place, codes, found

_ERRORS = {
    # The file itself.
    "not-found": "there is no such file, and no shipped constitution of this name",
    "unreadable": "the file cannot be opened",
    "too-large": "the file, or the files that extend one another, hold too many bytes or values",
    "not-utf8": "a byte is not UTF-8",
    "yaml-syntax": "the text is not YAML, or YAML that a constitution has no use for",
    "yaml-tag": "a YAML tag asks for something other than a text, a number, a list or a mapping",
    "yaml-alias": "an alias has no anchor, or an anchor contains itself",
    "duplicate-key": "a key is given twice in one mapping",
    "non-printing": "a character that nobody sees: control, direction override, zero width, private",
    "too-many": "more problems than are listed",
    # Keys and values.
    "unknown-key": "a key that the schema does not have",
    "missing-key": "a key that must be there is not",
    "wrong-type": "a list, a text, a number or a mapping where another is expected",
    "bad-name": "a name with other characters than letters, digits, - and _, or too long",
    "bad-value": "a value that is not one of those allowed, or not finite",
    "empty": "a text, list or mapping without content",
    "negative-weight": "a weight below 0",
    "floor-range": "a floor outside 0 to 1",
    "all-off": "every principle of an objective, or every objective, has weight 0",
    # What belongs together.
    "duplicate-id": "two principles with one id",
    "unknown-objective": "the aggregation names an objective that is not there",
    "same-principle": "a principle stands twice, word for word",
    "same-responses": "a case whose better and worse response are the same",
    "template-syntax": "{{, {% or {# in a question or a principle: templates are written in it, texts are not",
    # extends.
    "bad-extends": "extends names nothing that can be extended, or goes in a circle, or too deep",
}
_WARNINGS = {
    "weights-sum": "the objectives' weights, or those of a tag, do not add up to 1",
    "zero-weight": "an objective is labelled and never counts",
    "high-floor": "a floor above 0.5 can bar both responses",
    "idle-floor": "floors that change nothing: with pareto, or on objectives that all weigh nothing",
    "unused-tag": "a tag that groups nothing, or is near another one",
    "look-alike": "a letter of another script that looks like the expected one",
    "near-duplicate": "two principles that say nearly the same",
    "contradiction": "two principles that say the opposite",
    "against-question": "a principle that prefers the opposite of what its objective asks",
    "too-long": "an objective's question and principles, or a case, fill more than half of the judge's context",
    "many-principles": "more principles in one objective than a judge keeps track of",
    "several-lines": "a question or principle of several lines; a judge reads it as one line of a list",
    "placeholder": "a text that waits to be written",
    "no-cases": "a principle without a case that tests it",
    "same-prompt": "two cases of a principle with one prompt, or one case in two principles",
    "marker": "a text that holds what prompts mark the verdict, the quoted parts or the turns with",
}
CODES = codes(_ERRORS, _WARNINGS)


def finding(code: str, place: Place, message: str) -> Finding:
    """Make a finding of a constitution; its code says how severe it is."""
    return found(CODES[code][0], code, place, message)
