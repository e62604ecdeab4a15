"""The actors of notification.

Owns names, queue and arguments as clients know them; each body loads, runs and saves, and nothing more:
nothing follows this stage.
"""

from typing import Any

from astrid_workers.broker import actor
from astrid_workers.notification import stage
from astrid_workers.pipeline import Stage


@actor(Stage.NOTIFICATION)
def deliver_notification(alert_id: str, channel: str) -> dict[str, Any]:
    """Deliver one alert to one channel, with its own retries."""
    work = stage.load(alert_id, channel)
    receipt = stage.run(work)
    return stage.save(work, receipt)


@actor(Stage.NOTIFICATION)
def legacy_notify_detection(detection_data: dict[str, Any]) -> dict[str, Any]:
    """Send the notifications of the detection that `detection_data["detection_id"]` names."""
    return stage.forward(detection_data)
