"""Conservation: what went in, what came out, and what does not close. Counting, no I/O."""

from odradek.streams.verify.counts import Conservation

__all__ = ["Conservation"]
