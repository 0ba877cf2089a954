"""when a chat session was deleted, for workers to delete its rows in portions

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("chat_sessions", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "idx_chat_sessions_deleted", "chat_sessions", ["id"], postgresql_where=_DELETED, sqlite_where=_DELETED
    )


def downgrade() -> None:
    # The older code knows no deleted chat sessions: what workers have not deleted yet goes now, as users wanted it.
    op.execute("DELETE FROM chat_sessions WHERE deleted_at IS NOT NULL")
    op.drop_index("idx_chat_sessions_deleted", "chat_sessions")
    op.drop_column("chat_sessions", "deleted_at")
