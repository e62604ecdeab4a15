"""Log lines as JSON objects, each with the message that it belongs to.

Owns the form of log lines of a worker process (structlog and the standard library's loggers alike) and
the context of the message being worked on: `message_id`, `queue`, `actor`, `attempt`, and
`observation_id` where the message names one. Never decides what is logged.
"""

import logging
import sys
from typing import Any

import dramatiq
import structlog
from dramatiq.common import q_name
from dramatiq.middleware import Middleware

#: Loggers whose chatter below WARNING is nobody's business here.
QUIET = (
    "alembic",
    "botocore",
    "s3transfer",
    "aiobotocore",
    "fsspec",
    "s3fs",
    "urllib3",
    "httpx",
    "httpcore",
    "matplotlib",
    "PIL",
)


def configure_logging(level: str = "INFO") -> None:
    """Send everything at `level` and above to stderr, one JSON object a line.

    To the process's own: Dramatiq's replacement of `sys.stderr` shows nothing before all have booted.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class LogContext(Middleware):
    """Binds the message being worked on to every line that its thread logs."""

    def before_process_message(self, _broker: Any, message: dramatiq.MessageProxy) -> None:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            message_id=message.message_id,
            queue=q_name(message.queue_name),
            actor=message.actor_name,
            attempt=int(message.options.get("retries", 0)) + 1,
            **_observation(message),
        )

    def after_ack(self, _broker: Any, _message: dramatiq.MessageProxy) -> None:
        structlog.contextvars.clear_contextvars()

    def after_nack(self, _broker: Any, _message: dramatiq.MessageProxy) -> None:
        structlog.contextvars.clear_contextvars()


def _observation(message: dramatiq.MessageProxy) -> dict[str, str]:
    """The observation that the message names: by keyword, in an ingest payload, or as the first argument."""
    named = message.kwargs.get("observation_id")
    first = message.args[0] if message.args else None
    if named is None and isinstance(first, dict):
        named = first.get("observation_id")
    if named is None and isinstance(first, str) and "observation" in message.actor_name:
        named = first
    return {} if named is None else {"observation_id": str(named)}
