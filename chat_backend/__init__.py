"""A chat backend: sessions, messages and live LLM replies behind any frontend."""

__version__ = "0.1.0"
