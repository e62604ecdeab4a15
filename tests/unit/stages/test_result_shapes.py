"""Every result has the keys that earlier clients rely on, in their nesting, and times with a zone."""

import uuid

import pytest

from astrid_workers.curation.curation_workers import (
    create_validation_events,
    curate_detections,
    generate_alerts,
    prepare_curation_interface,
    send_notifications,
)
from astrid_workers.detection.detection_workers import (
    batch_detect_anomalies,
    calculate_detection_metrics,
    detect_anomalies,
    run_ml_inference,
    store_detection_results,
    validate_detections,
)
from astrid_workers.differencing.differencing_workers import (
    apply_differencing_algorithm,
    batch_difference_observations,
    difference_observation,
    extract_sources,
    validate_difference_image,
)
from astrid_workers.ingestion.observation_workers import ingest_observation
from astrid_workers.preprocessing.preprocessing_workers import (
    align_observation,
    apply_calibration,
    assess_quality,
    batch_preprocess_observations,
    preprocess_observation,
)
from astrid_workers.sky.make_sky import make_sky
from astrid_workers.sky.sky_to_fits import sky_to_fits
from support import contract_results as contract
from support.seeded_archive import capture_messages, use_own_archive

EXPECTED = {
    "preprocess_observation": contract.PREPROCESS,
    "apply_calibration": contract.CALIBRATION,
    "align_observation": contract.ALIGNMENT,
    "assess_quality": contract.QUALITY,
    "batch_preprocess_observations": contract.BATCH,
    "difference_observation": contract.DIFFERENCE,
    "zogy": contract.ALGORITHM | {"zogy_parameters": contract.ZOGY_PARAMETERS},
    "classic": contract.ALGORITHM | {"classic_parameters": contract.CLASSIC_PARAMETERS},
    "validate_difference_image": contract.DIFFERENCE_VALIDATION,
    "extract_sources": contract.EXTRACTION,
    "batch_difference_observations": contract.BATCH,
    "detect_anomalies": contract.DETECT,
    "run_ml_inference": contract.INFERENCE,
    "validate_detections": contract.DETECTION_VALIDATION,
    "calculate_detection_metrics": contract.DETECTION_METRICS,
    "store_detection_results": contract.DETECTION_STORAGE,
    "batch_detect_anomalies": contract.BATCH,
    "curate_detections": contract.CURATE,
    "create_validation_events": contract.EVENTS,
    "generate_alerts": contract.ALERTS,
    "prepare_curation_interface": contract.INTERFACE,
    "send_notifications": contract.NOTIFICATIONS,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One field carried from its files to curation, each actor's result by its name."""
    folder = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_own_archive(monkeypatch, folder)
        monkeypatch.setenv("ASTRID_INPUT_ROOTS", str(folder))
        capture_messages(monkeypatch)
        yield _carried(folder)


def _carried(folder):
    sky = make_sky(seed=3, shape=(128, 128), n_stars=40, n_transients=4, transient_snr=(15, 40))
    science, reference = sky_to_fits(sky)
    for name, data in (("ref_1", reference), ("obs_1", science)):
        (folder / f"{name}.fits").write_bytes(data)
        ingest_observation(
            {
                "survey_id": "survey_456",
                "observation_id": name,
                "ra": 150.1,
                "dec": 2.2,
                "observation_time": "2024-01-01T12:00:00Z",
                "fits_url": (folder / f"{name}.fits").as_uri(),
            }
        )
        preprocess_observation(name)
    difference = difference_observation("obs_1")
    run = detect_anomalies(difference["difference_id"], "matched-filter")
    named = (run["difference_id"], run["detection_id"])
    return {
        "preprocess_observation": preprocess_observation("obs_1"),
        "apply_calibration": apply_calibration("obs_1", {}),
        "align_observation": align_observation("obs_1"),
        "assess_quality": assess_quality("obs_1"),
        "batch_preprocess_observations": batch_preprocess_observations(["obs_1"]),
        "difference_observation": difference,
        "zogy": apply_differencing_algorithm("obs_1", "zogy"),
        "classic": apply_differencing_algorithm("obs_1", "classic"),
        "validate_difference_image": validate_difference_image(named[0]),
        "extract_sources": extract_sources(named[0]),
        "batch_difference_observations": batch_difference_observations(["obs_1"]),
        "detect_anomalies": run,
        "run_ml_inference": run_ml_inference(named[0], "matched-filter"),
        "validate_detections": validate_detections(named[1]),
        "calculate_detection_metrics": calculate_detection_metrics(named[1]),
        "store_detection_results": store_detection_results(named[1]),
        "batch_detect_anomalies": batch_detect_anomalies([named[0]], "matched-filter"),
        "curate_detections": curate_detections(named[1]),
        "create_validation_events": create_validation_events(named[1]),
        "generate_alerts": generate_alerts(named[1]),
        "prepare_curation_interface": prepare_curation_interface(named[1]),
        "send_notifications": send_notifications(named[1]),
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_every_key_is_there_in_its_nesting(results, name):
    """A client of the earlier system finds what it looks for; new keys may stand beside."""
    assert contract.missing_keys(results[name], EXPECTED[name], name) == []


@pytest.mark.parametrize("name", EXPECTED)
def test_every_time_has_a_zone(results, name):
    """UTC with a zone, where the earlier system had local times without."""
    assert contract.times_without_zone(results[name], name) == []


@pytest.mark.parametrize("name", EXPECTED)
def test_every_result_is_strict_json(results, name):
    """No NaN, no NumPy number, no UUID: what Redis stores can be read by anything."""
    import json

    assert json.loads(json.dumps(results[name], allow_nan=False)) == results[name]


#: What stays null, as nothing measures it: truth, a GPU, a calibrated model, or a quantity of the earlier system only.
NEVER_MEASURED = {
    "correlation_threshold", "correlation_matrix", "normalization", "edge_preservation", "detail_retention",
    "min_area", "max_area", "deblend_threshold", "completeness", "reliability", "false_positive_rate",
    "input_size", "batch_size", "confidence_threshold", "confidence", "class", "gpu_memory_used", "model_accuracy",
    "precision", "recall", "f1_score", "auc", "gpu_utilization", "io_operations", "high_confidence",
    "medium_confidence", "low_confidence", "transient_detections", "variable_detections", "artifact_detections",
    "confidence_range", "class_validity", "confidence_maps", "metadata", "total_size", "compression_ratio",
    "assigned_to",
}  # fmt: skip
#: What this field cannot have: no calibration frames, no zero point, no classic kernel in ZOGY; no such channels.
NOT_HERE = {
    "bias_frame", "dark_frame", "flat_frame", "correction_factor", "exposure_time", "normalization_factor",
    "limiting_magnitude", "mag", "mag_err", "limit_mag", "kernel_size", "recipients", "subject", "channel", "message", "notification_type", "data",
    "withheld_because", "reason", "detection_images", "confidence_distribution",
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_what_can_be_measured_is(results, name):
    """A value is null only where nothing measures it: a number whose name drifted apart would be null for ever."""
    assert nulls(results[name]) <= NEVER_MEASURED | NOT_HERE


def nulls(value, key=""):
    """Keys under which null stands; the members of a null distribution count under its name."""
    if isinstance(value, dict):
        inner = {key} if key in NOT_HERE else set()
        return inner or {found for name, below in value.items() for found in nulls(below, name)}
    if isinstance(value, list):
        return {found for item in value for found in nulls(item, key)}
    return {key} if value is None else set()


def test_ids_are_uuids(results):
    """Old forms such as `diff_<obs>_<time>` are not relied on."""
    for name in ("preprocess_run_id",):
        uuid.UUID(results["preprocess_observation"][name])
    for name in ("observation_id", "reference_id", "difference_run_id", "difference_id"):
        uuid.UUID(results["difference_observation"][name])


def test_the_table_notices_what_is_missing():
    """The comparison itself can fail: a lost key, a flattened mapping, an empty list, a naive time."""
    shape = {"a": {"b", "c"}, "d": [{"e"}]}

    assert contract.missing_keys({"a": {"b": 1, "c": 2}, "d": [{"e": 1}]}, shape) == []
    assert contract.missing_keys({"a": {"b": 1}, "d": [{}]}, shape) == [".a.c", ".d[].e"]
    assert contract.missing_keys({"a": 3, "d": []}, shape) == [".a", ".d[]"]
    assert contract.times_without_zone({"x": [{"created_at": "2024-01-01T12:00:00"}]}) == [".x[].created_at"]
