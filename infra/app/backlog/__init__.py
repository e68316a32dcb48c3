"""How far each process is behind, in records that it has still to do.

The distance between a committed offset and the end of a partition says it badly. Markers of
transactions take offsets and are no records, and the committed offset of our processes is a
low-water mark: much of what lies above it is done, as the metadata of the commit says. `offsets`
reads those, `processes` is the table of who reads what, `lag` works out the rest, and `progress`
says by a process' own pace whether it stands still; all four are pure. `spans` reads the offsets of
records, and `count` asks the broker and drives the others. `publish` makes metrics of it.
"""

from odradek.infra.app.backlog.count import BacklogCount
from odradek.infra.app.backlog.lag import PartitionLag, ProcessLag, behind
from odradek.infra.app.backlog.processes import TRAINER
from odradek.infra.app.backlog.publish import BacklogMetrics

__all__ = ["TRAINER", "BacklogCount", "BacklogMetrics", "PartitionLag", "ProcessLag", "behind"]
