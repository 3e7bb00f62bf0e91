"""Meters on other hosts, roles of devices, and calibrations.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate to this schema. Runs before it had one host, one clock and no roles."""
    with op.batch_alter_table("domains") as table:
        table.add_column(sa.Column("host", sa.Text(), nullable=True))
        table.add_column(
            sa.Column("clock_half_width_s", sa.Float(), nullable=False, server_default="0")
        )
    with op.batch_alter_table("runs") as table:
        table.add_column(sa.Column("roles", sa.JSON(), nullable=False, server_default="{}"))
    op.create_table(
        "calibrations",
        sa.Column("calibration_id", sa.String(40), nullable=False),
        sa.Column("created_unix_s", sa.Float(), nullable=False),
        sa.Column("expires_unix_s", sa.Float(), nullable=False),
        sa.Column("fit", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("calibration_id", name="pk_calibrations"),
    )
    op.create_index("ix_calibrations_created_unix_s", "calibrations", ["created_unix_s"])
