"""The one shape of every batch actor's result.

Owns the counting: `successful` is what was accepted and queued, `failed` what was refused. A refused item
never keeps the others back; what breaks later is the business of the item's own message.
"""

from collections.abc import Callable, Sequence
from typing import Any

from astrid_workers.errors import PermanentFailure, UnknownRecord
from astrid_workers.names import checked_name


def queue_each(items: Sequence[str], item_key: str, queue_one: Callable[[str], str]) -> dict[str, Any]:
    """Queue every item; `queue_one` returns the message id, or raises PermanentFailure to refuse the item.

    The result has `total_processed, successful, failed, results, errors`; an accepted item is
    `{index, <item_key>, message_id, status: "queued"}`, a refused one `{index, <item_key>, error}`.
    """
    if not isinstance(items, list | tuple):
        message = f"a batch must be a list of ids, got {type(items).__name__}"
        raise UnknownRecord(message)
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        try:
            message_id = queue_one(checked_name(item, item_key))
        except PermanentFailure as refusal:
            errors.append({"index": index, item_key: item, "error": str(refusal)})
        else:
            results.append({"index": index, item_key: item, "message_id": message_id, "status": "queued"})
    return {
        "total_processed": len(items),
        "successful": len(results),
        "failed": len(errors),
        "results": results,
        "errors": errors,
    }
