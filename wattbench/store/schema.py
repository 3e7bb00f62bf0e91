"""Tables. What they hold is raw; every conclusion is computed from it on reading.

A change here comes with an Alembic migration under ``migrations/versions`` and a kept database
of the schema before it under ``tests/data``.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _run_id(*, primary: bool) -> sa.Column[str]:
    return sa.Column(
        "run_id",
        sa.ForeignKey("runs.run_id", ondelete="CASCADE"),
        primary_key=primary,
        nullable=False,
        index=not primary,
    )


runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.String(40), primary_key=True),
    sa.Column("batch_id", sa.String(40), nullable=False, index=True),
    sa.Column("point_index", sa.Integer, nullable=False),
    sa.Column("repeat_index", sa.Integer, nullable=False),
    sa.Column("started_unix_s", sa.Float, nullable=False, index=True),
    sa.Column("virtual_time", sa.Boolean, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("error_text", sa.Text),
    sa.Column("tag", sa.Text, index=True),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("workload_name", sa.Text, nullable=False),
    sa.Column("backend_name", sa.Text, nullable=False),
    sa.Column("hardware_name", sa.Text),
    sa.Column("workload", sa.JSON, nullable=False),
    sa.Column("backend", sa.JSON, nullable=False),
    sa.Column("engine", sa.JSON, nullable=False),
    sa.Column("hardware", sa.JSON, nullable=False),
    sa.Column("meters", sa.JSON, nullable=False),
    sa.Column("operating_point", sa.JSON, nullable=False),
    sa.Column("devices", sa.JSON(none_as_null=True)),
    sa.Column("roles", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("environment", sa.JSON, nullable=False),
    sa.Column("writer", sa.JSON, nullable=False),
)

requests = sa.Table(
    "requests",
    metadata,
    _run_id(primary=True),
    sa.Column("request_index", sa.Integer, primary_key=True),
    sa.Column("session_index", sa.Integer, nullable=False),
    sa.Column("turn_index", sa.Integer, nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("requested_input_tokens", sa.Integer, nullable=False),
    sa.Column("requested_output_tokens", sa.Integer, nullable=False),
    sa.Column("ignore_eos", sa.Boolean, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("queued_s", sa.Float, nullable=False),
    sa.Column("sent_s", sa.Float, nullable=False),
    sa.Column("end_s", sa.Float, nullable=False),
    sa.Column("input_tokens", sa.Integer),
    sa.Column("output_tokens", sa.Integer),
    sa.Column("cached_tokens", sa.Integer),
    sa.Column("reasoning_tokens", sa.Integer),
    sa.Column("tokens_source", sa.String(16)),
    sa.Column("output_bytes", sa.Integer),
    sa.Column("finish_reason", sa.Text),
    sa.Column("error_class", sa.Text),
    sa.Column("error_text", sa.Text),
    sa.Column("chunk_count", sa.Integer, nullable=False),
    sa.Column("time_codec", sa.String(24), nullable=False),
    sa.Column("chunk_s", sa.LargeBinary, nullable=False),
    sa.Column("value_codec", sa.String(24), nullable=False),
    sa.Column("chunk_tokens", sa.LargeBinary, nullable=False),
)

domains = sa.Table(
    "domains",
    metadata,
    _run_id(primary=True),
    sa.Column("domain", sa.String(80), primary_key=True),
    sa.Column("meter", sa.Text, nullable=False),
    sa.Column("quantity", sa.String(16), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("boundary", sa.String(16), nullable=False),
    sa.Column("current", sa.String(2)),
    sa.Column("parent", sa.String(80)),
    sa.Column("devices", sa.JSON, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("interpolation", sa.String(8), nullable=False),
    sa.Column("update_period_s", sa.Float),
    sa.Column("averaging_window_s", sa.Float),
    sa.Column("coverage_fraction", sa.Float),
    sa.Column("stamped_by", sa.String(8), nullable=False, server_default="reader"),
    sa.Column("wrap_joules", sa.Float),
    sa.Column("gain_half_width_fraction", sa.Float, nullable=False),
    sa.Column("offset_half_width_watts", sa.Float, nullable=False),
    sa.Column("on_client_host", sa.Boolean, nullable=False),
    sa.Column("host", sa.Text),
    sa.Column("clock_half_width_s", sa.Float, nullable=False, server_default="0"),
)

trace_blocks = sa.Table(
    "trace_blocks",
    metadata,
    _run_id(primary=True),
    sa.Column("domain", sa.String(80), primary_key=True),
    sa.Column("block_index", sa.Integer, primary_key=True),
    sa.Column("sample_count", sa.Integer, nullable=False),
    sa.Column("start_s", sa.Float, nullable=False),
    sa.Column("end_s", sa.Float, nullable=False),
    sa.Column("time_codec", sa.String(24), nullable=False),
    sa.Column("time_s", sa.LargeBinary, nullable=False),
    sa.Column("value_codec", sa.String(24), nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

calibrations = sa.Table(
    "calibrations",
    metadata,
    sa.Column("calibration_id", sa.String(40), primary_key=True),
    sa.Column("created_unix_s", sa.Float, nullable=False, index=True),
    sa.Column("expires_unix_s", sa.Float, nullable=False),
    sa.Column("fit", sa.JSON, nullable=False),
)

simulations = sa.Table(
    "simulations",
    metadata,
    sa.Column("simulation_id", sa.String(40), primary_key=True),
    sa.Column("created_unix_s", sa.Float, nullable=False, index=True),
    sa.Column("scenario", sa.Text, nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("versions", sa.JSON, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
)

documents = sa.Table(
    "documents",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("file_name", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("content", sa.LargeBinary),
)
"""Files that runs were imported from; the content, packed by zlib, unless it is too large."""

reported = sa.Table(
    "reported",
    metadata,
    sa.Column("reported_id", sa.Integer, primary_key=True, autoincrement=True),
    _run_id(primary=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("statistic", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("event_id", sa.Integer, primary_key=True, autoincrement=True),
    _run_id(primary=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("time_s", sa.Float, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
)
