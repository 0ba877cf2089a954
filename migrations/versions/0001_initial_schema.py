"""initial schema

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.online import refuse_to_lose

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "chat_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=True),
        sa.Column("llm_provider", sa.String(length=50), nullable=False),
        sa.Column("llm_model", sa.String(length=100), nullable=False),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message_count", sa.Integer(), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("last_offset", sa.Integer(), nullable=False),
        sa.Column("last_message_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("llm_provider IN ('LOCAL', 'OPENROUTER')", name=op.f("check_valid_llm_provider")),
        sa.CheckConstraint(
            "message_count >= 0 AND last_seq >= 0 AND last_offset >= 0", name=op.f("check_valid_counters")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chat_sessions")),
    )
    with op.batch_alter_table("chat_sessions", schema=None) as batch_op:
        batch_op.create_index(
            "idx_chat_sessions_active",
            ["user_id"],
            unique=False,
            postgresql_where=sa.text("is_active"),
            sqlite_where=sa.text("is_active"),
        )
        batch_op.create_index("idx_chat_sessions_created", ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("idx_chat_sessions_llm_model"), ["llm_model"], unique=False)
        batch_op.create_index(batch_op.f("idx_chat_sessions_llm_provider"), ["llm_provider"], unique=False)
        batch_op.create_index("idx_chat_sessions_user_active", ["user_id", "is_active"], unique=False)
        batch_op.create_index(batch_op.f("idx_chat_sessions_user_id"), ["user_id"], unique=False)

    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "scope", "key", name=op.f("pk_idempotency_keys")),
    )
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("idx_idempotency_keys_created_at"), ["created_at"], unique=False)

    op.create_table(
        "chat_messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column(
            "role", sa.Enum("user", "assistant", "system", name="role", native_enum=False, length=20), nullable=False
        ),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "pending",
                "streaming",
                "complete",
                "failed",
                "cancelled",
                name="messagestatus",
                native_enum=False,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("parent_message_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("llm_provider", sa.String(length=50), nullable=True),
        sa.Column("llm_model", sa.String(length=100), nullable=True),
        sa.Column("response_time_ms", sa.Integer(), nullable=True),
        sa.Column("tokens_used", sa.Integer(), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("message_metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('user', 'assistant', 'system')", name=op.f("check_valid_message_role")),
        sa.CheckConstraint(
            "status IN ('pending', 'streaming', 'complete', 'failed', 'cancelled')",
            name=op.f("check_valid_message_status"),
        ),
        sa.CheckConstraint("tokens_used >= 0", name=op.f("check_positive_tokens")),
        sa.ForeignKeyConstraint(
            ["parent_message_id"],
            ["chat_messages.id"],
            name=op.f("fk_chat_messages_parent_message_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["chat_sessions.id"], name=op.f("fk_chat_messages_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chat_messages")),
        sa.UniqueConstraint("session_id", "seq", name=op.f("uq_chat_messages_session_id_seq")),
    )
    with op.batch_alter_table("chat_messages", schema=None) as batch_op:
        batch_op.create_index("idx_chat_messages_created", ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("idx_chat_messages_llm_model"), ["llm_model"], unique=False)
        batch_op.create_index(batch_op.f("idx_chat_messages_llm_provider"), ["llm_provider"], unique=False)
        batch_op.create_index("idx_chat_messages_parent", ["parent_message_id"], unique=False)
        batch_op.create_index("idx_chat_messages_role", ["role"], unique=False)
        batch_op.create_index("idx_chat_messages_session_created", ["session_id", "created_at"], unique=False)
        batch_op.create_index(
            "idx_chat_messages_session_role_created", ["session_id", "role", "created_at"], unique=False
        )

    op.create_table(
        "chat_participants",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column(
            "role",
            sa.Enum("owner", "member", "viewer", name="participantrole", native_enum=False, length=20),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'member', 'viewer')", name=op.f("check_valid_participant_role")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["chat_sessions.id"], name=op.f("fk_chat_participants_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "user_id", name=op.f("pk_chat_participants")),
    )
    with op.batch_alter_table("chat_participants", schema=None) as batch_op:
        batch_op.create_index("idx_chat_participants_user_session", ["user_id", "session_id"], unique=False)

    op.create_table(
        "session_events",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("offset", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "type",
            sa.Enum(
                "connection_established",
                "user_joined",
                "user_left",
                "message_update",
                "message_delta",
                "job_update",
                "session_update",
                "typing_indicator",
                "error",
                "pong",
                name="eventtype",
                native_enum=False,
                length=40,
            ),
            nullable=False,
        ),
        sa.Column(
            "action",
            sa.Enum(
                "new_message",
                "updated",
                "restarted",
                "completed",
                "failed",
                "cancelled",
                "streaming",
                name="action",
                native_enum=False,
                length=20,
            ),
            nullable=True,
        ),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["chat_sessions.id"], name=op.f("fk_session_events_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "offset", name=op.f("pk_session_events")),
    )
    with op.batch_alter_table("session_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("idx_session_events_created_at"), ["created_at"], unique=False)

    op.create_table(
        "ws_tickets",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("token_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["chat_sessions.id"], name=op.f("fk_ws_tickets_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_ws_tickets")),
    )
    with op.batch_alter_table("ws_tickets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("idx_ws_tickets_expires_at"), ["expires_at"], unique=False)

    op.create_table(
        "llm_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("assistant_message_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "queued", "running", "succeeded", "failed", "cancelled", name="jobstatus", native_enum=False, length=20
            ),
            nullable=False,
        ),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("chain", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("chain_position", sa.Integer(), nullable=False),
        sa.Column("options", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("abandonments", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("lease_owner", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("cancel_requested_at", sa.Double(), nullable=True),
        sa.Column("retry_at", sa.Double(), nullable=True),
        sa.Column("error_code", sa.String(length=50), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name=op.f("check_running_has_lease")),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("check_valid_job_status")
        ),
        sa.ForeignKeyConstraint(
            ["assistant_message_id"],
            ["chat_messages.id"],
            name=op.f("fk_llm_jobs_assistant_message_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["message_id"], ["chat_messages.id"], name=op.f("fk_llm_jobs_message_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["chat_sessions.id"], name=op.f("fk_llm_jobs_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_llm_jobs")),
        sa.UniqueConstraint("assistant_message_id", name=op.f("uq_llm_jobs_assistant_message_id")),
    )
    with op.batch_alter_table("llm_jobs", schema=None) as batch_op:
        batch_op.create_index(
            "idx_llm_jobs_due",
            ["not_before"],
            unique=False,
            postgresql_where=sa.text("status = 'queued'"),
            sqlite_where=sa.text("status = 'queued'"),
        )
        batch_op.create_index(
            "idx_llm_jobs_lease",
            ["lease_until"],
            unique=False,
            postgresql_where=sa.text("status = 'running'"),
            sqlite_where=sa.text("status = 'running'"),
        )
        batch_op.create_index("idx_llm_jobs_message", ["message_id"], unique=False)
        batch_op.create_index("idx_llm_jobs_session_position", ["session_id", "position"], unique=False)
        batch_op.create_index(
            "idx_llm_jobs_unfinished",
            ["session_id"],
            unique=False,
            postgresql_where=sa.text("status IN ('queued', 'running')"),
            sqlite_where=sa.text("status IN ('queued', 'running')"),
        )
        batch_op.create_index(batch_op.f("idx_llm_jobs_user_id"), ["user_id"], unique=False)
        batch_op.create_index(
            "uq_llm_jobs_running",
            ["session_id"],
            unique=True,
            postgresql_where=sa.text("status = 'running'"),
            sqlite_where=sa.text("status = 'running'"),
        )
        batch_op.create_index(
            "uq_llm_jobs_unfinished",
            ["message_id"],
            unique=True,
            postgresql_where=sa.text("status IN ('queued', 'running')"),
            sqlite_where=sa.text("status IN ('queued', 'running')"),
        )

    op.create_table(
        "llm_attempts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("worker", sa.String(length=64), nullable=False),
        sa.Column(
            "outcome",
            sa.Enum(
                "succeeded",
                "failed",
                "cancelled",
                "abandoned",
                "handed_over",
                name="outcome",
                native_enum=False,
                length=20,
            ),
            nullable=True,
        ),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.String(length=50), nullable=True),
        sa.Column("time_to_first_token_ms", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "outcome IS NULL OR outcome IN ('succeeded', 'failed', 'cancelled', 'abandoned', 'handed_over')",
            name=op.f("check_valid_outcome"),
        ),
        sa.CheckConstraint("number >= 1", name=op.f("check_valid_number")),
        sa.ForeignKeyConstraint(["job_id"], ["llm_jobs.id"], name=op.f("fk_llm_attempts_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_llm_attempts")),
    )


def downgrade() -> None:
    refuse_to_lose("every chat session", "SELECT 1 FROM chat_sessions LIMIT 1")
    op.drop_table("llm_attempts")
    with op.batch_alter_table("llm_jobs", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_llm_jobs_unfinished",
            postgresql_where=sa.text("status IN ('queued', 'running')"),
            sqlite_where=sa.text("status IN ('queued', 'running')"),
        )
        batch_op.drop_index(
            "uq_llm_jobs_running",
            postgresql_where=sa.text("status = 'running'"),
            sqlite_where=sa.text("status = 'running'"),
        )
        batch_op.drop_index(batch_op.f("idx_llm_jobs_user_id"))
        batch_op.drop_index(
            "idx_llm_jobs_unfinished",
            postgresql_where=sa.text("status IN ('queued', 'running')"),
            sqlite_where=sa.text("status IN ('queued', 'running')"),
        )
        batch_op.drop_index("idx_llm_jobs_session_position")
        batch_op.drop_index("idx_llm_jobs_message")
        batch_op.drop_index(
            "idx_llm_jobs_lease",
            postgresql_where=sa.text("status = 'running'"),
            sqlite_where=sa.text("status = 'running'"),
        )
        batch_op.drop_index(
            "idx_llm_jobs_due", postgresql_where=sa.text("status = 'queued'"), sqlite_where=sa.text("status = 'queued'")
        )

    op.drop_table("llm_jobs")
    with op.batch_alter_table("ws_tickets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("idx_ws_tickets_expires_at"))

    op.drop_table("ws_tickets")
    with op.batch_alter_table("session_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("idx_session_events_created_at"))

    op.drop_table("session_events")
    with op.batch_alter_table("chat_participants", schema=None) as batch_op:
        batch_op.drop_index("idx_chat_participants_user_session")

    op.drop_table("chat_participants")
    with op.batch_alter_table("chat_messages", schema=None) as batch_op:
        batch_op.drop_index("idx_chat_messages_session_role_created")
        batch_op.drop_index("idx_chat_messages_session_created")
        batch_op.drop_index("idx_chat_messages_role")
        batch_op.drop_index("idx_chat_messages_parent")
        batch_op.drop_index(batch_op.f("idx_chat_messages_llm_provider"))
        batch_op.drop_index(batch_op.f("idx_chat_messages_llm_model"))
        batch_op.drop_index("idx_chat_messages_created")

    op.drop_table("chat_messages")
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("idx_idempotency_keys_created_at"))

    op.drop_table("idempotency_keys")
    with op.batch_alter_table("chat_sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("idx_chat_sessions_user_id"))
        batch_op.drop_index("idx_chat_sessions_user_active")
        batch_op.drop_index(batch_op.f("idx_chat_sessions_llm_provider"))
        batch_op.drop_index(batch_op.f("idx_chat_sessions_llm_model"))
        batch_op.drop_index("idx_chat_sessions_created")
        batch_op.drop_index(
            "idx_chat_sessions_active", postgresql_where=sa.text("is_active"), sqlite_where=sa.text("is_active")
        )

    op.drop_table("chat_sessions")
