"""Worker settings: names, defaults, precedence and refusals."""

import pytest

from astrid_workers.config import (
    TaskQueue,
    WorkerConfig,
    WorkerType,
    get_task_queues,
    get_worker_config,
    queue_settings,
    variables,
)
from astrid_workers.errors import SettingRejected

#: The queue table that earlier clients know: queue → priority, max_retries, timeout, concurrency.
TABLE = {
    "observation_ingestion": (1, 3, 300, 2),
    "preprocessing": (2, 3, 600, 2),
    "differencing": (3, 3, 900, 1),
    "detection": (4, 3, 1200, 1),
    "curation": (5, 2, 300, 1),
    "notification": (6, 2, 60, 3),
}


def test_built_in_defaults_are_those_of_the_earlier_system():
    """What a client reads from an untouched configuration, but for prefetch, which hides work from others."""
    config = WorkerConfig({})
    assert (config.broker_url, config.result_backend) == (
        "redis://localhost:6379/0",
        "redis://localhost:6379/1",
    )
    assert (config.max_retries, config.retry_delay, config.worker_timeout) == (3, 1000, 300)
    assert (config.max_memory, config.max_cpu, config.concurrency) == (1024, 80, 4)
    assert (config.queue_name, config.priority, config.enabled) == ("default", 0, True)
    assert config.prefetch_multiplier == 1


@pytest.mark.parametrize(("queue", "row"), TABLE.items())
def test_row_of_the_table_holds_for_its_queue(queue, row):
    """Each row decides priority, retries, time limit and concurrency of its queue where nothing else does."""
    settings = queue_settings(queue, WorkerConfig({}))
    assert (settings.priority, settings.max_retries, settings.timeout_s, settings.concurrency) == row
    assert settings.prefetch == settings.concurrency


def test_variable_wins_over_the_table_and_the_table_over_what_is_built_in():
    """Precedence is per queue and per setting."""
    config = WorkerConfig({"WORKER_TIMEOUT": "7", "WORKER_CONCURRENCY": "5"})
    detection = queue_settings("detection", config)
    assert (detection.timeout_s, detection.concurrency, detection.max_retries) == (7, 5, 3)
    assert queue_settings("notification", config).max_retries == 2
    assert queue_settings("default", config).max_retries == 3


def test_assigned_value_wins_over_the_variable():
    """`config.max_retries = 5` counts as a flag."""
    config = WorkerConfig({"WORKER_MAX_RETRIES": "1"})
    config.max_retries = 5
    assert queue_settings("curation", config).max_retries == 5


def test_customising_the_process_s_own_configuration_has_effect():
    """What get_worker_config and get_task_queues return is what this process goes by, from then on."""
    get_worker_config().worker_timeout = 600
    next(row for row in get_task_queues() if row.queue_name == "curation").max_retries = 9
    assert queue_settings("curation").timeout_s == 600
    assert queue_settings("curation").max_retries == 9
    assert get_worker_config() is get_worker_config()


def test_added_row_is_a_queue():
    """A queue added to the table has settings of its own."""
    get_task_queues().append(TaskQueue("slow_lane", WorkerType.DETECTION, 7, 1, 4000, 2))
    assert queue_settings("slow_lane").timeout_s == 4000


def test_queue_outside_the_table_has_the_row_of_its_worker_type():
    """A second queue for one stage is treated as that stage's."""
    config = WorkerConfig({"WORKER_TYPE": "detection", "WORKER_QUEUE": "detection_gpu"})
    assert queue_settings("detection_gpu", config).timeout_s == 1200


@pytest.mark.parametrize(
    ("environment", "prefetch"),
    [
        ({"WORKER_CONCURRENCY": "3"}, 3),
        ({"WORKER_CONCURRENCY": "3", "WORKER_PREFETCH_MULTIPLIER": "4"}, 12),
        ({"WORKER_CONCURRENCY": "3", "WORKER_PREFETCH_MULTIPLIER": "4", "WORKER_PREFETCH": "5"}, 5),
    ],
)
def test_prefetch_is_concurrency_times_the_multiplier_unless_given(environment, prefetch):
    """WORKER_PREFETCH, else concurrency × WORKER_PREFETCH_MULTIPLIER."""
    assert queue_settings("detection", WorkerConfig(environment)).prefetch == prefetch


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "redis://localhost:6379/1"),
        ({"REDIS_URL": "redis://a:1/0"}, "redis://a:1/0"),
        ({"REDIS_URL": "redis://a:1/0", "REDIS_RESULT_URL": "redis://b:2/3"}, "redis://b:2/3"),
    ],
)
def test_results_go_where_the_broker_is_unless_told(environment, expected):
    """A broker that is given alone also keeps the results: a container has no other at localhost."""
    assert WorkerConfig(environment).result_backend == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WORKER_MAX_RETRIES", "many"),
        ("WORKER_MAX_RETRIES", "-1"),
        ("WORKER_RETRY_DELAY", "0"),
        ("WORKER_TIMEOUT", "1.5"),
        ("WORKER_CONCURRENCY", "0"),
        ("WORKER_MAX_MEMORY", "1G"),
        ("WORKER_NAMESPACE", "a b"),
        ("WORKER_TYPE", "detection,nope"),
    ],
)
def test_bad_variable_is_refused_by_name(variable, value):
    """The sentence names the variable, its value and what it must be."""
    with pytest.raises(SettingRejected, match=rf"{variable} is '{value}', must be"):
        WorkerConfig({variable: value})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("localhost:6379", "REDIS_URL is (address withheld), must be an address of a Redis: expected one of"),
        (
            "http://:hal@here/0",
            "REDIS_URL is (address withheld), must be an address of a Redis: expected one of",
        ),
        (
            "redis://:hal/f@here/0",
            "reserved characters in a user name, password or option must be percent-enc",
        ),
        (
            "redis://:hal@here/0?ssl_cert_reqs=none",
            "REDIS_URL is redis://***@here/0, must be an address of a Redis: redis-py cannot use its option ssl_",
        ),
        ("redis+sentinel://:hal@s1:x/astrid", "the port of a Sentinel is no number"),
    ],
)
def test_an_address_is_refused_without_repeating_it(value, sentence):
    """Of all settings, addresses alone hold secrets."""
    with pytest.raises(SettingRejected) as refused:
        WorkerConfig({"REDIS_URL": value})
    assert sentence in str(refused.value)
    assert "hal" not in str(refused.value)


def test_settings_show_no_address():
    """Whoever prints them prints no password."""
    assert "hal" not in repr(WorkerConfig({"REDIS_URL": "redis://:hal@here/0"}))


def test_bad_assignment_is_refused():
    """Assigning checks as the environment does."""
    config = WorkerConfig({})
    with pytest.raises(SettingRejected, match="max_retries is True"):
        config.max_retries = True
    with pytest.raises(SettingRejected, match="max_tries is no setting"):
        config.max_tries = 3
    assert config.max_retries == 3


def test_every_variable_sets_one_setting():
    """No two settings share a variable, and each variable's name says whose it is."""
    names = variables()
    assert len(set(names.values())) == len(names)
    assert {"WORKER_MAX_RETRIES", "WORKER_RETRY_DELAY", "WORKER_MAX_RETRY_DELAY", "WORKER_TIMEOUT"} <= set(
        names
    )
    assert {"WORKER_MAX_MEMORY", "WORKER_MAX_CPU", "WORKER_CONCURRENCY", "WORKER_PROCESSES"} <= set(names)
    assert {"WORKER_PREFETCH", "WORKER_PREFETCH_MULTIPLIER", "WORKER_NAMESPACE", "WORKER_RESULT_TTL"} <= set(
        names
    )
