"""Simulations of the router.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate to this schema. Nothing was simulated before it."""
    op.create_table(
        "simulations",
        sa.Column("simulation_id", sa.String(40), primary_key=True),
        sa.Column("created_unix_s", sa.Float(), nullable=False),
        sa.Column("scenario", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_simulations_created_unix_s", "simulations", ["created_unix_s"])
