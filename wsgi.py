"""What a WSGI server serves: `gunicorn -c python:chat_backend.web.gunicorn_conf wsgi:app`."""

from chat_backend.logs import set_up_logging
from chat_backend.startup import settings_or_exit, warn
from chat_backend.web.app import create_app

settings = settings_or_exit()
set_up_logging(settings.log_level)
warn(settings)
app = create_app(settings)
