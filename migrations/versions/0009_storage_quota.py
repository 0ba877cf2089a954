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
        "storage_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_storage_changes")),
    )
    op.create_index("idx_storage_changes_user", "storage_changes", ["user_id", "stored_bytes"])
    op.add_column("chat_messages", sa.Column("storage_user_id", sa.String(length=255), nullable=True))


def downgrade() -> None:
    refuse_to_lose("what users store", "SELECT 1 FROM storage_changes LIMIT 1")
    op.drop_column("chat_messages", "storage_user_id")
    op.drop_table("storage_changes")
