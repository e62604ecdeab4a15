"""The command line of a worker: `python -m astrid_workers.start_workers`.

Owns flags, what is printed at start and what the worker processes below it are told; `worker_set` keeps
them. Never loads an actor itself.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from astrid_workers.config import WorkerConfig, WorkerType, get_worker_config
from astrid_workers.errors import SettingRejected
from astrid_workers.numeric_threads import available_cores, limit_numeric_threads
from astrid_workers.redis_address import redacted
from astrid_workers.start_plan import StartPlan, plan_start
from astrid_workers.worker_set import EXIT_UNUSABLE, WorkerSet

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def build_parser() -> argparse.ArgumentParser:
    """The flags: one that is not given leaves its setting to the variable, the table or what is built in."""
    parser = argparse.ArgumentParser(
        prog="python -m astrid_workers.start_workers",
        description="Run Astrid's workers. A flag wins over its variable, that over the queue table.",
    )
    parser.add_argument(
        "--worker-types",
        nargs="+",
        default=[],
        metavar="TYPE",
        help=f"stages whose actors are loaded (WORKER_TYPE): {', '.join(WorkerType)}; default: all",
    )
    parser.add_argument(
        "--queues",
        nargs="+",
        default=[],
        metavar="QUEUE",
        help="queues to consume (WORKER_QUEUE), `default` for health_check; default: those of the types",
    )
    parser.add_argument("--processes", metavar="N", help="worker processes (WORKER_PROCESSES)")
    parser.add_argument("--threads", metavar="N", help="tasks at once per process (WORKER_CONCURRENCY)")
    parser.add_argument(
        "--worker-shutdown-timeout",
        type=int,
        metavar="MS",
        help="milliseconds that a stopping process may take; default: its longest time limit and some slack",
    )
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default=os.environ.get("WORKER_LOG_LEVEL", "INFO"),
        help="least that is logged (WORKER_LOG_LEVEL); default: INFO",
    )
    parser.add_argument(
        "--setup-only", action="store_true", help="check settings, load the actors, print both, and exit"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run workers until told to stop.

    The exit status is 0 then, 2 for unusable settings, 1 where none can start.
    """
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.log_level not in LOG_LEVELS:
        parser.error(f"WORKER_LOG_LEVEL is {options.log_level!r}, must be one of {', '.join(LOG_LEVELS)}")
    try:
        config = get_worker_config()
        if options.processes is not None:
            config.processes = options.processes
        if options.threads is not None:
            config.concurrency = options.threads
        plan = plan_start(
            config,
            worker_types=options.worker_types,
            queues=options.queues,
            cores=available_cores(),
            shutdown_timeout_ms=options.worker_shutdown_timeout,
        )
    except SettingRejected as error:
        print(f"start_workers: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    environment = _environment(plan, config, options.log_level)
    _say("\n".join([f"broker {redacted(config.broker_url)}, namespace {config.namespace}", *plan.lines()]))
    if options.setup_only:
        return _load_only(environment)
    command = [sys.executable, "-m", "dramatiq", *plan.arguments()]
    return WorkerSet(command, plan.processes, environment).run()


def _environment(plan: StartPlan, config: WorkerConfig, log_level: str) -> dict[str, str]:
    environment = {**os.environ, **plan.environment(), "WORKER_LOG_LEVEL": log_level}
    if config.given("concurrency"):
        environment["WORKER_CONCURRENCY"] = str(config.concurrency)
    limit_numeric_threads(plan.numeric_threads, environment)
    return environment


def _load_only(environment: Mapping[str, str]) -> int:
    """Load the actors as a worker would; prints them."""
    code = "import sys; from astrid_workers.app import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
