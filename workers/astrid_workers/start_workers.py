"""The command line of a worker: `python -m astrid_workers.start_workers`.

Owns flags, what is printed at start, and the worker processes below it: each is one `dramatiq` command
with one worker process, so that one that dies takes no other with it. A process that ends by itself
(killed, over its memory limit, ended by its time limit) is replaced; one that cannot use its settings,
or cannot even start a few times in a row, ends the command, for whoever watches it to see. SIGTERM and
SIGINT are handed on once and waited for. Never loads an actor itself.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence

from astrid_workers.config import WorkerConfig, WorkerType, get_worker_config
from astrid_workers.errors import SettingRejected
from astrid_workers.numeric_threads import available_cores, limit_numeric_threads
from astrid_workers.start_plan import StartPlan, plan_start

#: Exit status where a flag or a variable cannot be used.
EXIT_UNUSABLE = 2
#: A process that lived for less counts as one that could not start, in seconds.
SHORT_LIFE_S = 15.0
#: Short lives in a row after which the command ends.
SHORT_LIVES = 5
#: Seconds before the replacement of a process that could not start, times the short lives so far.
REPLACE_AFTER_S = 2.0
#: Seconds between two looks at the processes, where nothing tells earlier.
LOOK_EVERY_S = 1.0

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
    return WorkerSet(plan, environment).run()


def _environment(plan: StartPlan, config: WorkerConfig, log_level: str) -> dict[str, str]:
    environment = {**os.environ, **plan.environment(), "WORKER_LOG_LEVEL": log_level}
    if config.given("concurrency"):
        environment["WORKER_CONCURRENCY"] = str(config.concurrency)
    limit_numeric_threads(plan.numeric_threads, environment)
    return environment


def redacted(url: str) -> str:
    """The address without its password."""
    parts = urllib.parse.urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:***@{host}").geturl()


def _load_only(environment: Mapping[str, str]) -> int:
    """Load the actors as a worker would; prints them."""
    code = "import sys; from astrid_workers.app import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class WorkerSet:
    """The worker processes of one command."""

    def __init__(self, plan: StartPlan, environment: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-m", "dramatiq", *plan.arguments()]
        self._environment = dict(environment)
        self._children: list[_Child] = [_Child() for _ in range(plan.processes)]
        self._stopping = False
        self._wake = threading.Event()

    def run(self) -> int:
        """Keep all of them running until told to stop; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: self._wake.set())
        failed = 0
        while True:
            self._wake.clear()
            for child in self._children:
                if not child.runs() and not self._stopping:
                    failed = failed or self._replace(child)
            if failed and not self._stopping:
                self._stop()
            if self._stopping and not any(child.runs() for child in self._children):
                return failed or max((abs(child.status) for child in self._children), default=0)
            self._wake.wait(LOOK_EVERY_S)

    def _on_stop(self, *_: object) -> None:
        if not self._stopping:
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        for child in self._children:
            child.terminate()
        self._wake.set()

    def _replace(self, child: "_Child") -> int:
        """Start `child` (again) when it is time; 0, or the status to end with where that cannot help."""
        if child.ended():
            _say(f"worker process {child.pid} ended with status {child.status} after {child.lived():.0f} s")
            if child.status == EXIT_UNUSABLE:
                return EXIT_UNUSABLE
        if child.short_lives >= SHORT_LIVES:
            _say(f"{SHORT_LIVES} worker processes in a row could not start; see above for why")
            return 1
        if time.monotonic() >= child.not_before:
            child.start(self._command, self._environment)
        return 0


class _Child:
    """One `dramatiq` command: starts, ends, and how often it did not even start."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0.0
        self._seen_end = True
        self.short_lives = 0
        self.not_before = 0.0
        self.status = 0

    @property
    def pid(self) -> int:
        """Of the process that runs or ran last."""
        return self._process.pid if self._process is not None else 0

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it, in a process group of its own so that a terminal's Ctrl-C reaches it only through us."""
        self._process = subprocess.Popen(
            command,
            env=environment,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
        )
        self._since, self._seen_end = time.monotonic(), False

    def runs(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def lived(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._since

    def ended(self) -> bool:
        """Whether it has ended since this was last asked; counts short lives."""
        if self._seen_end or self._process is None:
            return False
        self._seen_end = True
        self.status = self._process.returncode
        self.short_lives = self.short_lives + 1 if self.lived() < SHORT_LIFE_S and self.status != 0 else 0
        self.not_before = time.monotonic() + REPLACE_AFTER_S * self.short_lives
        return True

    def terminate(self) -> None:
        """Ask it to stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


def die_with_parent() -> None:
    """End this process when its starter is gone, however that ended. Does nothing but on Linux."""
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
