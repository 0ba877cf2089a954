"""the unfinished jobs of each chat session in their order, and its idempotency keys

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NAME = "idx_llm_jobs_unfinished"
_UNFINISHED = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    _replace("session_id", "position")
    op.create_index("idx_idempotency_keys_scope", "idempotency_keys", ["scope"])


def downgrade() -> None:
    op.drop_index("idx_idempotency_keys_scope", "idempotency_keys")
    _replace("session_id")


def _replace(*columns: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index(_NAME, "llm_jobs")
        op.create_index(_NAME, "llm_jobs", list(columns), sqlite_where=_UNFINISHED)
        return
    # Queries use this index all the time: the old one goes when the new one is there.
    op.create_index(f"{_NAME}_new", "llm_jobs", list(columns), postgresql_where=_UNFINISHED)
    op.drop_index(_NAME, "llm_jobs")
    op.execute(f"ALTER INDEX {_NAME}_new RENAME TO {_NAME}")
