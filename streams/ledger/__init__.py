"""Conservation: what went in, what came out, and what does not close. Counting, no I/O."""

from odradek.streams.ledger.ledger import Ledger

__all__ = ["Ledger"]
