"""What the environment tells the operator, parsed once (`ASTRID_OPERATOR_*` and `REDIS_URL`).

Owns names, defaults and units of the variables. Never connects to anything; secrets stay in `SecretStr`.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from astrid_operator.defaults import IMAGE, LOG_FORMAT, LOG_LEVEL, LogFormat, LogLevel
from astrid_operator.redis_address import redacted

#: Where a pod finds the namespace it runs in.
POD_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

#: Namespace of the operator where neither a pod nor a setting says another.
DEFAULT_NAMESPACE = "astrid-system"


class OperatorSettings(BaseSettings):
    """The operator's own settings; a command line flag overrides its variable."""

    model_config = SettingsConfigDict(
        env_prefix="ASTRID_OPERATOR_", extra="ignore", frozen=True, populate_by_name=True
    )

    #: Image of workers whose AstridQueue names none.
    image: str = IMAGE
    #: Namespaces to serve, separated by commas; empty: all.
    namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    #: Redis of every AstridQueue that names no broker of its own.
    redis_url: SecretStr | None = Field(default=None, validation_alias="REDIS_URL")
    #: Mounted broker addresses: `<namespace>/<secret>/<key>` below it.
    brokers_dir: Path = Path("/etc/astrid/brokers")

    #: Seconds between two decisions for all queues.
    tick_seconds: float = Field(default=1.0, gt=0)
    #: Longest that one command batch on one Redis may take; a slow one freezes only its own queues.
    redis_timeout_seconds: float = Field(default=2.0, gt=0)
    #: Refreshes of mere numbers in status, for the whole operator; decisions are not held back.
    status_writes_per_second: float = Field(default=0.2, ge=0)
    #: Seconds between two comparisons of what watches told with what a list tells.
    resync_seconds: float = Field(default=300.0, gt=0)

    #: Nodes with devices come when pods ask for them: what nodes have now is then no bound for fleets.
    gpu_nodes_grow: bool = False

    #: Namespace that holds the Lease; empty: the operator's own.
    lease_namespace: str = ""
    lease_name: str = "astrid-operator"
    #: A follower takes over when the Lease was not renewed for this long: so long a burst is unanswered when
    #: a leader is killed. An API server that is away for longer costs nothing, unless a follower comes first.
    lease_seconds: float = Field(default=5.0, gt=0)
    #: A leader that could not renew for this long writes nothing until it can.
    lease_renew_seconds: float = Field(default=3.5, gt=0)
    #: Pause between two attempts to take or renew.
    lease_retry_seconds: float = Field(default=1.0, gt=0)

    #: Address and ports of metrics and probes; port 0 takes a free one.
    listen_address: str = "0.0.0.0"  # noqa: S104 (probes and scrapers come from outside the pod)
    metrics_port: int = Field(default=8080, ge=0, le=65535)
    probes_port: int = Field(default=8081, ge=0, le=65535)

    log_level: LogLevel = LOG_LEVEL
    log_format: LogFormat = LOG_FORMAT

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @property
    def home_namespace(self) -> str:
        """Where the Lease lives: as set, else the first namespace served, else the pod's own."""
        if self.lease_namespace:
            return self.lease_namespace
        if self.namespaces:
            return self.namespaces[0]
        if POD_NAMESPACE_FILE.is_file():
            return POD_NAMESPACE_FILE.read_text().strip()
        return DEFAULT_NAMESPACE

    def effective(self) -> dict[str, Any]:
        """Every setting by name as plain values, secrets masked: what the start-up line prints."""
        values = self.model_dump(mode="json")
        values["redis_url"] = redacted(self.redis_url.get_secret_value()) if self.redis_url else None
        values["home_namespace"] = self.home_namespace
        return values
