"""What schemathesis makes of openapi.yaml, as JSON's writers make it."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Write 3.0 as 3: JSON Schema calls both integers, the API takes only the latter."""
    if isinstance(body, float) and body.is_integer():
        return int(body)
    if isinstance(body, list):
        return [map_body(_context, item) for item in body]
    if isinstance(body, dict):
        return {key: map_body(_context, value) for key, value in body.items()}
    return body
