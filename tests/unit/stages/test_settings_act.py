"""Variables that stages obey when a message does not say otherwise."""

import numpy as np
import pytest

from astrid_workers.curation.curation_workers import curate_detections
from astrid_workers.detection.detection_workers import detect_anomalies, legacy_infer_detections
from astrid_workers.errors import UnknownModel
from astrid_workers.notification.channels import WebhookChannel, channel
from astrid_workers.settings import NotificationSettings, StorageSettings
from astrid_workers.storage.artifacts import get_store
from astrid_workers.storage.fits import FitsLimits
from astrid_workers.storage.sources import configured_sources
from support.seeded_archive import Seed, seed_difference

SKY = [Seed(30, 40, 25.0), Seed(60, 50, -12.0), Seed(90, 30, 6.0)]


def curated(database):
    """The result of curating `SKY`."""
    return curate_detections(
        detect_anomalies(str(seed_difference(database, SKY)), "matched-filter")["detection_id"]
    )


def picture_shape(result):
    """Height and width of the first triplet, read off its PNG header."""
    data = get_store().get(result["interface"]["data"]["detection_images"][0])
    return tuple(int(each) for each in np.frombuffer(data[16:24], ">u4")[::-1])


def test_the_model_is_the_configured_one(database, sent, monkeypatch):
    """WORKER_MODEL_ID goes into the hand-off; a model that is not installed is refused by its name."""
    seed_difference(database, SKY)
    monkeypatch.setenv("WORKER_MODEL_ID", "unet_v1")

    with pytest.raises(UnknownModel, match="'unet_v1' is not installed"):
        legacy_infer_detections("obs_123")
    assert sent.messages == []


@pytest.mark.parametrize(("least", "alerts"), [("5", 3), ("10", 2), ("20", 1), ("30", 0)])
def test_alerts_start_at_the_configured_score(database, sent, monkeypatch, least, alerts):
    """ASTRID_CURATION_ALERT_MIN_SCORE: |score| in sigma, of either sign."""
    monkeypatch.setenv("ASTRID_CURATION_ALERT_MIN_SCORE", least)

    assert curated(database)["alerts"]["alerts_generated"] == alerts


def test_pictures_are_as_large_as_configured(database, sent, monkeypatch):
    """ASTRID_CURATION_TRIPLET_SIZE_PX is the side of one cutout: a picture's height is a multiple of it."""
    monkeypatch.setenv("ASTRID_CURATION_TRIPLET_SIZE_PX", "25")
    height, width = picture_shape(curated(database))

    assert (height % 25, width > 3 * height - 25) == (0, True)


def test_limits_of_input_are_the_configured_ones(monkeypatch, tmp_path, database):
    """ASTRID_MAX_INPUT_BYTES, ASTRID_MAX_PIXELS, ASTRID_FETCH_TIMEOUT_SECONDS and ASTRID_INPUT_ROOTS reach their readers."""
    monkeypatch.setenv("ASTRID_MAX_INPUT_BYTES", "1000")
    monkeypatch.setenv("ASTRID_MAX_PIXELS", "2000")
    monkeypatch.setenv("ASTRID_FETCH_TIMEOUT_SECONDS", "3")
    monkeypatch.setenv("ASTRID_INPUT_ROOTS", f"{tmp_path}:/nowhere")
    settings = StorageSettings()
    limits, sources = FitsLimits.from_settings(settings), configured_sources(settings, get_store())

    assert (limits.max_bytes, limits.max_pixels) == (1000, 2000)
    assert (sources.https.max_bytes, sources.https.timeout_seconds) == (1000, 3)
    assert (sources.max_bytes, [str(root) for root in sources.roots]) == (1000, [str(tmp_path), "/nowhere"])


def test_a_webhook_has_the_configured_patience(monkeypatch):
    """ASTRID_WEBHOOK_URL and ASTRID_WEBHOOK_TIMEOUT_SECONDS are the channel's."""
    monkeypatch.setenv("ASTRID_WEBHOOK_URL", "https://example.org/hook")
    monkeypatch.setenv("ASTRID_WEBHOOK_TIMEOUT_SECONDS", "2.5")

    assert channel("webhook", NotificationSettings()) == WebhookChannel("https://example.org/hook", 2.5)
