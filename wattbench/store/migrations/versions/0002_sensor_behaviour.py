"""Sensor behaviour: averaging window and coverage of a domain.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate to this schema. Domains before it had neither: instant values, all of the time."""
    with op.batch_alter_table("domains") as table:
        table.add_column(sa.Column("averaging_window_s", sa.Float(), nullable=True))
        table.add_column(sa.Column("coverage_fraction", sa.Float(), nullable=True))
        table.add_column(
            sa.Column("stamped_by", sa.String(8), nullable=False, server_default="reader")
        )
    op.execute("UPDATE domains SET coverage_fraction = 1.0")
    op.execute("UPDATE domains SET stamped_by = 'sensor' WHERE meter = 'emulated'")
