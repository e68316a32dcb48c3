"""Imports: conversations that were recorded elsewhere, as episodes of the log.

`recording` is what all formats become, and `turns` makes turns of messages. `chat`, `verifiers`,
`spans` and `rows` each read one format, and `format` is their table. `episodes` makes the events of
a recording: their ids follow from what was recorded. All of these are pure. `files` reads records
from files, and `publish` appends what the log does not have yet.
"""

from odradek.infra.app.imports.format import FORMATS

__all__ = ["FORMATS"]
