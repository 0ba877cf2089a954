"""The enumerations of the contract.

A newer release may know more members and have written them: stored values that are no member are read as plain text. So
decisions name the members they know; what a status that is not known means is decided here.
"""

from enum import StrEnum


class Role(StrEnum):
    """Who speaks in a message."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


class MessageStatus(StrEnum):
    """How far a message has come; all but replies are born complete."""

    PENDING = "pending"
    STREAMING = "streaming"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobStatus(StrEnum):
    """The states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED_JOB = (JobStatus.QUEUED, JobStatus.RUNNING)
ENDED_JOB = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
UNFINISHED_REPLY = (MessageStatus.PENDING, MessageStatus.STREAMING)
FINISHED_MESSAGE = (MessageStatus.COMPLETE, MessageStatus.FAILED, MessageStatus.CANCELLED)


def has_ended(job_status: str) -> bool:
    """Return whether a job has ended. One whose status is not known has not: the release that knows it goes on."""
    return job_status in ENDED_JOB


def is_finished(message_status: str) -> bool:
    """Return whether a message may be changed or regenerated. One whose status is not known may not."""
    return message_status in FINISHED_MESSAGE


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    HANDED_OVER = "handed_over"


class Purpose(StrEnum):
    """What a provider is asked for in an attempt: the reply itself, or something that helps."""

    REPLY = "reply"
    SUMMARY = "summary"
    TITLE = "title"


class ParticipantRole(StrEnum):
    """What a participant may do in a chat session."""

    OWNER = "owner"
    MEMBER = "member"
    VIEWER = "viewer"


class OnBusy(StrEnum):
    """What a second prompt does while one is answered."""

    QUEUE = "queue"
    REJECT = "reject"
    INTERRUPT = "interrupt"


class Titles(StrEnum):
    """What names a chat session that nobody has named."""

    OFF = "off"
    WORDS = "words"
    MODEL = "model"


class Action(StrEnum):
    """What happened to a message."""

    NEW_MESSAGE = "new_message"
    UPDATED = "updated"
    RESTARTED = "restarted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STREAMING = "streaming"


class AuditAction(StrEnum):
    """What someone did in a chat session."""

    SESSION_CREATED = "session_created"
    SESSION_CHANGED = "session_changed"
    PARTICIPANT_ADDED = "participant_added"
    PARTICIPANT_CHANGED = "participant_changed"
    PARTICIPANT_REMOVED = "participant_removed"
    MESSAGE_SENT = "message_sent"
    MESSAGE_CHANGED = "message_changed"
    REPLY_ASKED = "reply_asked"
    REPLY_REGENERATED = "reply_regenerated"
    REPLY_CANCELLED = "reply_cancelled"


class EventType(StrEnum):
    """What the server says on a socket."""

    CONNECTION_ESTABLISHED = "connection_established"
    USER_JOINED = "user_joined"
    USER_LEFT = "user_left"
    MESSAGE_UPDATE = "message_update"
    MESSAGE_DELTA = "message_delta"
    JOB_UPDATE = "job_update"
    SESSION_UPDATE = "session_update"
    TYPING_INDICATOR = "typing_indicator"
    ERROR = "error"
    PONG = "pong"


PROVIDERS = ("LOCAL", "OPENROUTER", "OPENAI")
