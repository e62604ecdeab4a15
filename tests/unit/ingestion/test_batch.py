"""A batch is as many messages as it has good payloads."""

from astrid_workers.ingestion.batch import queue_payloads

GOOD = {"survey_id": "s", "observation_id": "a", "ra": 1, "dec": 1, "observation_time": "2026-01-01"}


def test_refused_items_do_not_stop_the_others():
    """Counts, items and errors as clients know them."""
    bad, no_object = {**GOOD, "ra": 400}, 5
    result = queue_payloads(
        [GOOD, bad, no_object, {**GOOD, "observation_id": "b"}], lambda data: "m-" + data["observation_id"]
    )
    assert result == {
        "total_processed": 4,
        "successful": 2,
        "failed": 2,
        "results": [
            {"index": 0, "observation_id": "a", "message_id": "m-a", "status": "queued"},
            {"index": 3, "observation_id": "b", "message_id": "m-b", "status": "queued"},
        ],
        "errors": [
            {"index": 1, "observation_data": bad, "error": "RA must be between 0 and 360 degrees"},
            {"index": 2, "observation_data": 5, "error": "Observation data must be an object"},
        ],
    }


def test_an_empty_batch_is_an_empty_result():
    """Not an error."""
    assert queue_payloads([], lambda _: "never")["total_processed"] == 0
