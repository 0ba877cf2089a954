"""attempts tell all that is billed, and a third provider

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.online import refuse_to_lose

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _columns() -> tuple[sa.Column, ...]:
    return (
        sa.Column("error_type", sa.String(length=50), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column("cost", sa.Double(), nullable=True),
        sa.Column("usage_estimated", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("generation_id", sa.String(length=200), nullable=True),
    )


def upgrade() -> None:

    with op.batch_alter_table("llm_attempts", schema=None) as batch_op:
        for column in _columns():
            batch_op.add_column(column)
    _allow("'LOCAL', 'OPENROUTER', 'OPENAI'")


def downgrade() -> None:

    refuse_to_lose(
        "chat sessions of the provider OPENAI", "SELECT 1 FROM chat_sessions WHERE llm_provider = 'OPENAI' LIMIT 1"
    )
    refuse_to_lose(
        "what attempts have cost",
        "SELECT 1 FROM llm_attempts WHERE cost IS NOT NULL OR generation_id IS NOT NULL LIMIT 1",
    )
    _allow("'LOCAL', 'OPENROUTER'")
    with op.batch_alter_table("llm_attempts", schema=None) as batch_op:
        for column in reversed(_columns()):
            batch_op.drop_column(column.name)


def _allow(providers: str) -> None:
    name = op.f("check_valid_llm_provider")
    with op.batch_alter_table("chat_sessions", schema=None) as batch_op:
        batch_op.drop_constraint(name, type_="check")
        batch_op.create_check_constraint(name, f"llm_provider IN ({providers})")
