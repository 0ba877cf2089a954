"""quotas

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.online import refuse_to_lose

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_RESERVED = sa.text("reserved_prompt_tokens IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "quota_days",
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("requests_used", sa.BigInteger(), nullable=False),
        sa.Column("tokens_used", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("requests_used >= 0 AND tokens_used >= 0", name=op.f("check_valid_quota_day")),
        sa.PrimaryKeyConstraint("user_id", "day", name=op.f("pk_quota_days")),
    )
    # Columns that may be empty are added in place, on both databases; the table is not copied.
    op.add_column("llm_jobs", sa.Column("reserved_prompt_tokens", sa.Integer(), nullable=True))
    op.add_column("llm_jobs", sa.Column("reserved_reply_tokens", sa.Integer(), nullable=True))
    op.create_index(
        "idx_llm_jobs_reserved", "llm_jobs", ["user_id"], postgresql_where=_RESERVED, sqlite_where=_RESERVED
    )


def downgrade() -> None:
    refuse_to_lose("the usage that quotas count", "SELECT 1 FROM quota_days LIMIT 1")
    op.drop_index("idx_llm_jobs_reserved", "llm_jobs")
    op.drop_column("llm_jobs", "reserved_reply_tokens")
    op.drop_column("llm_jobs", "reserved_prompt_tokens")
    op.drop_table("quota_days")
