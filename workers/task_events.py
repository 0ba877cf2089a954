"""What Celery tells Flower of its tasks: gathered, and sent a few times a second.

As it comes each event is a publish of its own, a tenth of what a reply costs; and while Redis hangs, the threads of
jobs send what has gathered, and hang with it.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events

GATHERED_SECONDS = 0.1
MOST_GATHERED = 10_000


class GatheredEvents(bootsteps.StartStopStep):
    """Lets one timer of the consumer's loop send all that has gathered."""

    requires = (Events,)

    def __init__(self, parent: Any, **more: Any) -> None:
        self._timer: Any = None
        super().__init__(parent, **more)

    def start(self, parent: Any) -> None:
        events = parent.event_dispatcher
        events.buffer_limit, events.on_send_buffered = MOST_GATHERED, None
        self._timer = parent.timer.call_repeatedly(GATHERED_SECONDS, events.flush)

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            parent.event_dispatcher.flush()
