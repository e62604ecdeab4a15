"""The actors of differencing.

Owns names, queue and arguments as clients know them; each body loads, runs, saves and sends, and nothing
more.
"""

from typing import Any

from astrid_workers.batches import queue_each
from astrid_workers.broker import actor
from astrid_workers.differencing import stacked_reference, stage
from astrid_workers.mosaic_messages import passed_to_parts
from astrid_workers.pipeline import Stage


@actor(Stage.DIFFERENCING)
def difference_observation(observation_id: str) -> dict[str, Any]:
    """Difference an observation against the reference that suits it best; of a mosaic each part."""
    if parts := passed_to_parts("difference_observation", Stage.DIFFERENCING, observation_id):
        return parts
    work = stage.load(observation_id)
    made = stage.run(work)
    result = stage.save(work, made)
    return stage.send(work, result)


@actor(Stage.DIFFERENCING)
def create_difference_image(observation_id: str, reference_id: str) -> dict[str, Any]:
    """Difference an observation against the reference that is named; of a mosaic each part."""
    if parts := passed_to_parts("create_difference_image", Stage.DIFFERENCING, observation_id, reference_id):
        return parts
    work = stage.load(observation_id, reference_id)
    made = stage.run(work)
    result = stage.save(work, made)
    return stage.send(work, result)


@actor(Stage.DIFFERENCING)
def apply_differencing_algorithm(observation_id: str, algorithm: str) -> dict[str, Any]:
    """Difference by `zogy`, `classic` or `auto`, without handing on: answers with how it went."""
    work = stage.load(observation_id, algorithm=algorithm)
    made = stage.run(work)
    return stage.algorithm_of(stage.save(work, made))


@actor(Stage.DIFFERENCING)
def validate_difference_image(difference_id: str) -> dict[str, Any]:
    """Whether a difference can be believed, with the numbers."""
    return stage.validation_of(difference_id)


@actor(Stage.DIFFERENCING)
def extract_sources(difference_id: str) -> dict[str, Any]:
    """The candidates of a difference."""
    return stage.extraction_of(difference_id)


@actor(Stage.DIFFERENCING)
def batch_difference_observations(observation_ids: list[str]) -> dict[str, Any]:
    """One `difference_observation` message for each observation."""
    return queue_each(observation_ids, "observation_id", stage.queue_one)


@actor(Stage.DIFFERENCING)
def legacy_difference_observation(observation_id: str) -> dict[str, Any]:
    """Send the observation on to `difference_observation`."""
    return stage.forward(observation_id)


@actor(Stage.DIFFERENCING)
def build_reference(request: dict[str, Any]) -> dict[str, Any]:
    """Stack a reference for a field and filter from observations, and set going what waits for it."""
    work = stacked_reference.load(stacked_reference.parsed_request(request))
    made = stacked_reference.run(work)
    result = stacked_reference.save(work, made)
    return stacked_reference.send(work, result)
