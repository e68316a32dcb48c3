"""What is made from the table of metrics.

`reference` makes the tables of the docs, `alarms` is the table of what can be wrong with a run, and
`rules` makes Prometheus' rule file from that.
"""

from odradek.infra.app.metrics.reference import page

__all__ = ["page"]
