"""`python -m chat_backend`: the command line where the project itself was not installed."""

from chat_backend.cli.main import main

raise SystemExit(main())
