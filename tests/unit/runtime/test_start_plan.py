"""What a command line and an environment make `start_workers` run."""

import pytest

from astrid_workers import start_workers
from astrid_workers.config import WorkerConfig, get_task_queues
from astrid_workers.errors import SettingRejected
from astrid_workers.numeric_threads import available_cores, limit_numeric_threads, numeric_threads
from astrid_workers.start_plan import plan_start

SIX = ("observation_ingestion", "preprocessing", "differencing", "detection", "curation", "notification")


def plan(environment=None, **flags):
    return plan_start(WorkerConfig(environment or {}), cores=8, **flags)


def queues(planned):
    return tuple(queue.queue_name for queue in planned.queues)


def test_without_a_choice_everything_is_served():
    """All six stages and health_check, with a thread for each task that the table allows."""
    planned = plan()
    assert queues(planned) == (*SIX, "default")
    assert planned.worker_types == SIX
    assert planned.threads == 2 + 2 + 1 + 1 + 1 + 3 + 1


def test_types_serve_their_own_queues():
    """--worker-types alone consumes the queues of these types."""
    planned = plan(worker_types=["curation", "detection"])
    assert queues(planned) == ("detection", "curation")
    assert planned.threads == 2


def test_queues_load_the_actors_that_they_need():
    """--queues alone loads the stages behind them; the queue of health_check needs none."""
    assert plan(queues=["notification"]).worker_types == ("notification",)
    assert plan(queues=["default"]).worker_types == ("default",)


def test_types_and_queues_together_are_both_meant():
    """A queue that none of the named types serves is refused, rather than one of the flags forgotten."""
    assert queues(plan(worker_types=["curation", "detection"], queues=["curation"])) == ("curation",)
    with pytest.raises(SettingRejected, match="queue curation belongs to worker type curation"):
        plan(worker_types=["detection"], queues=["curation"])


def test_environment_of_a_pod_is_enough():
    """The variables that the operator sets choose queue and actors as flags do."""
    planned = plan({"WORKER_TYPE": "detection", "WORKER_QUEUE": "detection_gpu", "WORKER_PROCESSES": "2"})
    assert queues(planned) == ("detection_gpu",)
    assert (planned.worker_types, planned.processes) == (("detection",), 2)


def test_flags_and_environment_of_a_pod_agree():
    """A queue outside the table is valid where WORKER_QUEUE names it."""
    environment = {"WORKER_TYPE": "detection", "WORKER_QUEUE": "detection_gpu"}
    assert queues(plan(environment, worker_types=["detection"], queues=["detection_gpu"])) == (
        "detection_gpu",
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"queues": ["detecton"]}, "unknown queue 'detecton'; there are curation, default, detection"),
        ({"worker_types": ["detecton"]}, "unknown worker type 'detecton'; there are curation"),
        ({"worker_types": ["detection"], "queues": ["other"]}, "unknown queue 'other'"),
    ],
)
def test_unknown_names_are_refused_with_the_valid_ones(flags, sentence):
    """A typo never starts a worker that consumes nothing."""
    with pytest.raises(SettingRejected, match=sentence):
        plan(**flags)


def test_own_queue_needs_a_type():
    """A queue outside the table without a worker type has no actors."""
    with pytest.raises(SettingRejected, match="WORKER_TYPE must be one of"):
        plan({"WORKER_QUEUE": "mine"})


def test_disabled_queue_is_not_served():
    """`enabled` of the table: left out of everything, refused when named."""
    next(row for row in get_task_queues() if row.queue_name == "curation").enabled = False
    assert "curation" not in queues(plan())
    with pytest.raises(SettingRejected, match="queue curation is disabled"):
        plan(queues=["curation"])


def test_shutdown_takes_the_longest_task_and_some():
    """A stopping worker may finish what it runs, unless the flag says how long."""
    assert plan(queues=["detection", "curation"]).shutdown_timeout_ms == 1_230_000
    assert plan(queues=["curation"], shutdown_timeout_ms=5000).shutdown_timeout_ms == 5000
    for impossible in (0, -5):
        with pytest.raises(
            SettingRejected, match=f"--worker-shutdown-timeout is {impossible}, must be at least 1"
        ):
            plan(queues=["curation"], shutdown_timeout_ms=impossible)


def test_dramatiq_gets_every_number_explicitly():
    """Its defaults are the machine's cores and eight threads: never left to them."""
    arguments = plan({"WORKER_CONCURRENCY": "3"}, queues=["detection"]).arguments()
    assert arguments == [
        "astrid_workers.app", "--processes", "1", "--threads", "3",
        "--worker-shutdown-timeout", "1230000", "--skip-logging", "--worker-fork-timeout", "100", "--queues", "detection",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cores", "percent", "processes", "threads", "expected"),
    [(8, 80, 1, 1, 6), (8, 80, 1, 4, 1), (64, 100, 2, 4, 8), (1, 80, 1, 1, 1), (0.5, 10, 4, 4, 1)],
)
def test_numeric_threads_share_the_cores(cores, percent, processes, threads, expected):
    """max(1, floor(cores × % / 100 / (processes × threads)))."""
    given = numeric_threads(cores=cores, max_cpu_percent=percent, processes=processes, threads=threads)
    assert given == expected


def test_container_quota_counts_as_cores(tmp_path):
    """In a container of half a core, a machine of many cores is half a core."""
    quota = tmp_path / "cpu.max"
    quota.write_text("50000 100000\n")
    assert available_cores(quota) == 0.5
    quota.write_text("max 100000\n")
    assert available_cores(quota) >= 1
    assert available_cores(tmp_path / "absent") >= 1


def test_threads_set_on_purpose_stay():
    """A variable of a numeric library that somebody set wins over the formula."""
    environment = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": ""}
    limit_numeric_threads(7, environment)
    assert (environment["OMP_NUM_THREADS"], environment["MKL_NUM_THREADS"]) == ("3", "7")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--queues", "nope"], "unknown queue 'nope'"),
        (["--worker-types", "nope"], "unknown worker type 'nope'"),
        (["--threads", "none"], "concurrency is 'none'"),
    ],
)
def test_unusable_command_line_is_status_2(arguments, sentence, capsys):
    """One sentence that lists what is valid, and exit status 2."""
    assert start_workers.main([*arguments, "--setup-only"]) == 2
    assert sentence in capsys.readouterr().err


def test_setup_only_shows_settings_and_actors_without_any_server(capfd, monkeypatch):
    """--setup-only needs no Redis, prints what would hold and what is loaded, and never shows a password."""
    monkeypatch.setenv("REDIS_URL", "redis://user:secret@nowhere.invalid:6379/0")
    assert start_workers.main(["--queues", "default", "--threads", "2", "--setup-only"]) == 0
    shown = capfd.readouterr()
    assert "default: health_check" in shown.out
    assert "concurrency 2" in shown.err
    assert "secret" not in shown.err


def test_setup_only_finds_a_setting_that_cannot_be_used(capfd, monkeypatch):
    """--setup-only ends with 2 and the sentence where a variable of a stage or of the storage is no good."""
    monkeypatch.setenv("ASTRID_ARTIFACTS_URL", "nonsense://bucket")
    assert start_workers.main(["--queues", "default", "--setup-only"]) == 2
    assert "ASTRID_ARTIFACTS_URL cannot be used: Protocol not known: nonsense" in capfd.readouterr().err
