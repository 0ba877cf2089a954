"""bytes that each user stores

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.online import refuse_to_lose

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "user_storage",
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("stored_bytes >= 0", name=op.f("check_valid_user_storage")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_storage")),
    )
    op.add_column("chat_messages", sa.Column("storage_user_id", sa.String(length=255), nullable=True))


def downgrade() -> None:
    refuse_to_lose("what users store", "SELECT 1 FROM user_storage WHERE stored_bytes > 0 LIMIT 1")
    op.drop_column("chat_messages", "storage_user_id")
    op.drop_table("user_storage")
