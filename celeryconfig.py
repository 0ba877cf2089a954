"""Celery's settings, for `app.config_from_object("celeryconfig")`."""

from chat_backend.queue.celery_settings import celery_settings
from chat_backend.startup import settings_or_exit

globals().update(celery_settings(settings_or_exit(), worker=True))
