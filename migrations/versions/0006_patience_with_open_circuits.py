"""since when a job has been passed over

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("llm_jobs", sa.Column("passed_over_at", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("llm_jobs", "passed_over_at")
