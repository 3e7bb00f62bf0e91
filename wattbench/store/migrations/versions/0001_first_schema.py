"""First schema.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate to this schema."""
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("batch_id", sa.String(length=40), nullable=False),
        sa.Column("point_index", sa.Integer(), nullable=False),
        sa.Column("repeat_index", sa.Integer(), nullable=False),
        sa.Column("started_unix_s", sa.Float(), nullable=False),
        sa.Column("virtual_time", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error_text", sa.Text(), nullable=True),
        sa.Column("tag", sa.Text(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("workload_name", sa.Text(), nullable=False),
        sa.Column("backend_name", sa.Text(), nullable=False),
        sa.Column("hardware_name", sa.Text(), nullable=True),
        sa.Column("workload", sa.JSON(), nullable=False),
        sa.Column("backend", sa.JSON(), nullable=False),
        sa.Column("engine", sa.JSON(), nullable=False),
        sa.Column("hardware", sa.JSON(), nullable=False),
        sa.Column("meters", sa.JSON(), nullable=False),
        sa.Column("operating_point", sa.JSON(), nullable=False),
        sa.Column("devices", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("writer", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runs_batch_id"), ["batch_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_runs_started_unix_s"), ["started_unix_s"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_runs_tag"), ["tag"], unique=False)

    op.create_table(
        "domains",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("domain", sa.String(length=80), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("quantity", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("boundary", sa.String(length=16), nullable=False),
        sa.Column("current", sa.String(length=2), nullable=True),
        sa.Column("parent", sa.String(length=80), nullable=True),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("interpolation", sa.String(length=8), nullable=False),
        sa.Column("update_period_s", sa.Float(), nullable=True),
        sa.Column("wrap_joules", sa.Float(), nullable=True),
        sa.Column("gain_half_width_fraction", sa.Float(), nullable=False),
        sa.Column("offset_half_width_watts", sa.Float(), nullable=False),
        sa.Column("on_client_host", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_domains_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "domain", name=op.f("pk_domains")),
    )
    op.create_table(
        "events",
        sa.Column("event_id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_events_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_run_id"), ["run_id"], unique=False)

    op.create_table(
        "requests",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("request_index", sa.Integer(), nullable=False),
        sa.Column("session_index", sa.Integer(), nullable=False),
        sa.Column("turn_index", sa.Integer(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("requested_input_tokens", sa.Integer(), nullable=False),
        sa.Column("requested_output_tokens", sa.Integer(), nullable=False),
        sa.Column("ignore_eos", sa.Boolean(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("queued_s", sa.Float(), nullable=False),
        sa.Column("sent_s", sa.Float(), nullable=False),
        sa.Column("end_s", sa.Float(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("tokens_source", sa.String(length=16), nullable=True),
        sa.Column("output_bytes", sa.Integer(), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("error_class", sa.Text(), nullable=True),
        sa.Column("error_text", sa.Text(), nullable=True),
        sa.Column("chunk_count", sa.Integer(), nullable=False),
        sa.Column("time_codec", sa.String(length=24), nullable=False),
        sa.Column("chunk_s", sa.LargeBinary(), nullable=False),
        sa.Column("value_codec", sa.String(length=24), nullable=False),
        sa.Column("chunk_tokens", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name=op.f("fk_requests_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "request_index", name=op.f("pk_requests")),
    )
    op.create_table(
        "trace_blocks",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("domain", sa.String(length=80), nullable=False),
        sa.Column("block_index", sa.Integer(), nullable=False),
        sa.Column("sample_count", sa.Integer(), nullable=False),
        sa.Column("start_s", sa.Float(), nullable=False),
        sa.Column("end_s", sa.Float(), nullable=False),
        sa.Column("time_codec", sa.String(length=24), nullable=False),
        sa.Column("time_s", sa.LargeBinary(), nullable=False),
        sa.Column("value_codec", sa.String(length=24), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.run_id"],
            name=op.f("fk_trace_blocks_run_id_runs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "domain", "block_index", name=op.f("pk_trace_blocks")),
    )
