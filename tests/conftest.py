"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from wattbench.store import connect, database_url


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database."""
    engine = connect(database_url(str(tmp_path / "runs.sqlite")), create=True)
    yield engine
    engine.dispose()
