"""The HTTP server's own log without clients' content: aiohttp quotes what it cannot parse."""

import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError

NAME: Final = "odradek.proxy.http"


class ServerLogFilter(logging.Filter):
    """Drops errors that a client causes, and keeps only the type of others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged; its exception's text, which may hold a token, never is."""
        kind, error, _ = record.exc_info or (None, None, None)
        if isinstance(error, HttpProcessingError):
            return False  # answered with 400, and anybody could fill a disk with these
        if kind is not None:
            record.msg, record.args = f"{record.getMessage()}: {kind.__name__}", ()
            record.exc_info = record.exc_text = None
        return True


def http_log() -> logging.Logger:
    """The logger that the HTTP server is given."""
    log = logging.getLogger(NAME)
    if not any(isinstance(installed, ServerLogFilter) for installed in log.filters):
        log.addFilter(ServerLogFilter())
    return log
