"""Arrays of dimensionless numbers: logarithms, draws, codes."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Scalar = np.floating[Any]
