"""summaries and titles by the model

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.online import refuse_to_lose

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OPEN_TITLE = sa.text("purpose = 'title' AND outcome IS NULL")


def upgrade() -> None:
    op.create_table(
        "context_summaries",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("covered_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["chat_sessions.id"],
            name=op.f("fk_context_summaries_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "covered_seq", name=op.f("pk_context_summaries")),
    )
    # With a default it is added in place, on both databases; the table is not copied.
    op.add_column("llm_attempts", sa.Column("purpose", sa.String(length=20), server_default="reply", nullable=False))
    op.create_index(
        "idx_llm_attempts_open_title",
        "llm_attempts",
        ["started_at"],
        postgresql_where=_OPEN_TITLE,
        sqlite_where=_OPEN_TITLE,
    )


def downgrade() -> None:
    refuse_to_lose("what attempts were made for", "SELECT 1 FROM llm_attempts WHERE purpose <> 'reply' LIMIT 1")
    op.drop_index("idx_llm_attempts_open_title", "llm_attempts")
    op.drop_column("llm_attempts", "purpose")
    op.drop_table("context_summaries")
