"""Google's SDK, unmodified: what it saw, and what the log holds."""

import pytest

from .test_clients import CALL, SCRIPT, check


@pytest.mark.clients
async def test_google_genai(play, program):
    """The prompt of the second call begins with all of the first, thoughts and chunks among it."""
    seen = await play(program("google_genai"), SCRIPT)
    conversation = ["hm, né", "", CALL, "", "né: done", 6]
    assert [conversation * 2, ["models/policy"]] == seen.said
    check(play, ["gemini"] * 4, 2)
    dropped = [turn.request.dropped for turn in play.bench.turns()]
    assert [("googleSearch",)] * 4 == dropped
