"""What a WSGI server serves: `gunicorn -c python:chat_backend.web.gunicorn_conf wsgi:app`."""

from chat_backend.startup import settings_or_exit
from chat_backend.web.app import create_app

app = create_app(settings_or_exit())
