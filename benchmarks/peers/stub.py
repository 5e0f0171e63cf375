"""The stub of the tests, with answers that every peer can read: ratings, a ranking's token, feedback and a verdict.

python -m benchmarks.peers.stub [--plain]
"""

from __future__ import annotations

from typing import Any

from tests import stub_server
from tests.stub_server import StubServer, probability_of


class PeersStub(StubServer):
    """Tells the peers by how they ask; to rlaif it is the stub of the tests."""

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = super()._answer(body)
        answer["created"] = 0
        last = body["messages"][-1]["content"]
        (choice,) = answer["choices"]
        first = probability_of(body["messages"]) > 0.5
        if "(write a feedback for criteria) [RESULT]" in last:
            choice["message"]["content"] = (
                f"Feedback: the two differ in what they say. [RESULT] {'A' if first else 'B'}"
            )
        elif "#### Output for Text 1" in last:
            rated = (4, 2) if first else (2, 4)
            parts = [f"#### Output for Text {n}\nRating: {r}\nRationale: It differs." for n, r in enumerate(rated, 1)]
            choice["message"]["content"] = "\n\n".join(parts)
        elif "## Best Model Identifier" in last:
            listed = [{"token": "m", "logprob": -0.4}, {"token": "M", "logprob": -1.2}]
            listed = [{**each, "bytes": None} for each in (listed if first else listed[::-1])]
            choice["message"]["content"] = listed[0]["token"]
            choice["logprobs"] = {"content": [{**listed[0], "top_logprobs": listed}]}
        return answer


if __name__ == "__main__":
    stub_server.StubServer = PeersStub  # type: ignore[misc]
    stub_server.main()
