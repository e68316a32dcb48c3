"""The trainer and the engine: the only folder that imports torch, and only in its modules."""

import os

# TRL warns on every import that its asynchronous trainer is experimental. We know: it is pinned to
# one minor version, and a test holds its numbers.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
