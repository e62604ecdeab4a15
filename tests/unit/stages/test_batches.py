"""The one shape of every batch result."""

from astrid_workers.batches import queue_each
from astrid_workers.errors import UnknownObservation


def test_a_refused_item_keeps_nobody_back():
    """Accepted items are queued and counted, refused ones listed with their sentence."""

    def queue_one(item):
        if item == "bad":
            raise UnknownObservation("no")
        return f"message-{item}"

    assert queue_each(["a", "bad", "c"], "observation_id", queue_one) == {
        "total_processed": 3,
        "successful": 2,
        "failed": 1,
        "results": [
            {"index": 0, "observation_id": "a", "message_id": "message-a", "status": "queued"},
            {"index": 2, "observation_id": "c", "message_id": "message-c", "status": "queued"},
        ],
        "errors": [{"index": 1, "observation_id": "bad", "error": "no"}],
    }


def test_an_empty_batch_is_done():
    """Nothing was asked, nothing failed."""
    assert queue_each([], "observation_id", str)["total_processed"] == 0
