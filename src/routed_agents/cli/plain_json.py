"""Values of a trace as JSON has them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast


def json_line(record: Mapping[str, Any]) -> str:
    """A record as JSON; exact decimals are strings, and so is, as OTLP has it, what JSON has no number for."""
    try:
        return json.dumps(record, default=plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(record), default=plain)


def plain(value: object) -> object:
    """A value as it is printed: text, or a number."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value if isinstance(value, (int, float)) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    return [_finite(each) for each in cast("Sequence[Any]", value)] if isinstance(value, (list, tuple)) else value
