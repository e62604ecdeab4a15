"""Queueing many payloads as one message each.

Owns the counting: `successful` is what was accepted and queued, `failed` what was refused, and a refused item
never keeps the others back.
"""

from collections.abc import Callable, Sequence
from typing import Any

from astrid_workers.ingestion.validate import errors_in


def queue_payloads(payloads: Sequence[Any], queue_one: Callable[[Any], str]) -> dict[str, Any]:
    """Queue each payload that breaks no rule; `queue_one` returns the id of its message."""
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for index, payload in enumerate(payloads):
        refused = errors_in(payload)
        if refused:
            errors.append({"index": index, "observation_data": payload, "error": "; ".join(refused)})
            continue
        message_id = queue_one(payload)
        named = {"observation_id": payload["observation_id"], "message_id": message_id}
        results.append({"index": index, **named, "status": "queued"})
    return {
        "total_processed": len(payloads),
        "successful": len(results),
        "failed": len(errors),
        "results": results,
        "errors": errors,
    }
