"""How every process of ours logs: a constant sentence, and the facts behind it as name=value."""

from __future__ import annotations

import logging
import sys
import time

from chat_backend.domain.trace import current_trace

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Facts(logging.Formatter):
    """One line a record: time in UTC, level, logger, sentence, what was given as `extra`, the name of the request."""

    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"

    def formatMessage(self, record: logging.LogRecord) -> str:
        facts = {name: value for name, value in vars(record).items() if name not in _KNOWN and name != "data"}
        if (trace_id := current_trace()) is not None:
            facts.setdefault("trace_id", trace_id)
        return super().formatMessage(record) + "".join(f" {name}={value!r}" for name, value in facts.items())


def set_up_logging(level: str) -> None:
    """Send every record of at least this level to stderr, our way; to be called once, when a process starts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Facts())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Two lines a request to a provider would drown what matters.
    for talkative in ("httpx", "httpcore", "aiohttp.access"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
