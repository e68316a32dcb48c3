"""Conservation: what went in, what came out, and what does not close. Counting, no I/O.

`report` reads the topics and drives `counts`, which gives each record to `episodes`, `groups`,
`trainer_runs` (made of `steps` and `policy_versions`); `partial_events` decodes only what is
counted, `findings` is the result.
"""

from odradek.streams.verify.counts import Conservation

__all__ = ["Conservation"]
