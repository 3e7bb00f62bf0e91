"""Arrays as blobs: how chunk stamps and traces lie in the store.

Every blob column stands beside a column that names its codec, so that later versions can add
codecs and still read what earlier ones wrote:

``ns-delta-zlib``
    Times. Whole nanoseconds on the run clock, each minus the one before it (the first minus 0),
    as little-endian signed 64-bit integers, deflated.
``f64-zlib``
    Values. Little-endian IEEE 754 doubles, deflated; NaN marks a failed read or an unknown.

A reader in three lines, without wattbench::

    raw = np.frombuffer(zlib.decompress(blob), "<i8" if codec == "ns-delta-zlib" else "<f8")
    time_s = np.cumsum(raw) / 1e9       # ns-delta-zlib
    value = raw                         # f64-zlib
"""

from __future__ import annotations

import zlib

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.core.errors import StoreError

TIMES = "ns-delta-zlib"
VALUES = "f64-zlib"
_LEVEL = 1


def pack_times(time_s: FloatArray) -> bytes:
    """Pack times of shape (n,) [s, run clock], to the nanosecond."""
    nanoseconds = np.rint(time_s * 1e9).astype("<i8")
    return zlib.compress(np.diff(nanoseconds, prepend=np.int64(0)).tobytes(), _LEVEL)


def pack_values(value: FloatArray) -> bytes:
    """Pack values of shape (n,), exactly."""
    return zlib.compress(np.asarray(value, "<f8").tobytes(), _LEVEL)


def unpack(codec: str, blob: bytes) -> FloatArray:
    """Shape (n,): what was packed.

    Raises:
        StoreError: For an unknown codec or a damaged blob.
    """
    try:
        raw = zlib.decompress(blob)
        if codec == TIMES:
            return np.asarray(np.cumsum(np.frombuffer(raw, "<i8")) / 1e9, np.float64)
        if codec == VALUES:
            return np.frombuffer(raw, "<f8").astype(np.float64)
    except (zlib.error, ValueError) as error:
        raise StoreError(f"a packed array ({codec}) is damaged: {error}") from error
    raise StoreError(f"a packed array has the codec {codec!r}, which this wattbench cannot read")
