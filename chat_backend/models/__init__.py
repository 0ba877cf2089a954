"""The tables."""

from chat_backend.models.audit_entry import AuditEntry
from chat_backend.models.base import Base, db
from chat_backend.models.chat_session import ChatSession
from chat_backend.models.context_summary import ContextSummary
from chat_backend.models.idempotency_key import IdempotencyKey
from chat_backend.models.llm_job import LlmAttempt, LlmJob
from chat_backend.models.message import Message
from chat_backend.models.participant import Participant
from chat_backend.models.quota_day import QuotaDay
from chat_backend.models.session_event import SessionEvent
from chat_backend.models.storage_change import StorageChange
from chat_backend.models.ticket import Ticket

__all__ = [
    "AuditEntry",
    "Base",
    "ChatSession",
    "ContextSummary",
    "IdempotencyKey",
    "LlmAttempt",
    "LlmJob",
    "Message",
    "Participant",
    "QuotaDay",
    "SessionEvent",
    "StorageChange",
    "Ticket",
    "db",
]
