"""Thinking tokens of each request.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate to this schema. Nobody counted thinking before it."""
    with op.batch_alter_table("requests") as table:
        table.add_column(sa.Column("reasoning_tokens", sa.Integer(), nullable=True))
