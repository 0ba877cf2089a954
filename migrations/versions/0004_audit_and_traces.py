"""audit log, and jobs that know the request which asked for them

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.online import refuse_to_lose

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("participant_id", sa.String(length=255), nullable=True),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("offset", sa.Integer(), nullable=False),
        sa.Column("trace_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["chat_sessions.id"], name=op.f("fk_audit_entries_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    with op.batch_alter_table("audit_entries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("idx_audit_entries_created_at"), ["created_at"], unique=False)
        batch_op.create_index("idx_audit_entries_session_id_id", ["session_id", "id"], unique=False)
    op.add_column("llm_jobs", sa.Column("trace_id", sa.String(length=64), nullable=True))


def downgrade() -> None:
    refuse_to_lose("the audit log", "SELECT 1 FROM audit_entries LIMIT 1")
    op.drop_column("llm_jobs", "trace_id")
    op.drop_table("audit_entries")
