"""The actors of curation.

Owns names, queue and arguments as clients know them; each body loads, runs, saves and sends, and nothing
more.
"""

from typing import Any

from astrid_workers.broker import actor
from astrid_workers.curation import stage
from astrid_workers.pipeline import Stage


@actor(Stage.CURATION)
def curate_detections(detection_id: str) -> dict[str, Any]:
    """Make events, alerts and pictures of a run's detections and send the alerts on."""
    work = stage.load(detection_id)
    curated = stage.run(work)
    result = stage.save(work, curated)
    return stage.send(work, result)


@actor(Stage.CURATION)
def create_validation_events(detection_id: str) -> dict[str, Any]:
    """Put a run's detections, or one, before people."""
    return stage.create_events(stage.find(detection_id))


@actor(Stage.CURATION)
def generate_alerts(detection_id: str) -> dict[str, Any]:
    """Raise the alerts of a run's detections, or of one, without sending them."""
    return stage.create_alerts(stage.find(detection_id))


@actor(Stage.CURATION)
def prepare_curation_interface(detection_id: str) -> dict[str, Any]:
    """What a person who reviews a run's detections, or one, is shown."""
    return stage.interface_of(stage.find(detection_id))


@actor(Stage.CURATION)
def send_notifications(detection_id: str) -> dict[str, Any]:
    """Queue the alerts of a run's detections, or of one, for each channel."""
    return stage.notify(stage.find(detection_id))
