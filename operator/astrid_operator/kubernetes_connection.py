"""Where the API server is and how to be let in.

Owns the choice of a cluster and the size of the client's pool of connections. Never sends a request.
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kubernetes.aio import client, config

from astrid_operator.errors import NoCluster
from astrid_operator.write_lanes import SIZES_AT_A_TIME, WRITES_AT_A_TIME

#: A connection to the API server, for those who only hand it on and close it.
Connection = client.ApiClient


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the API server is and how to be let in, for the informer, which speaks HTTP itself."""

    server: str
    ca_path: str | None
    ca_data: str | bytes | None
    insecure: bool
    certificate_path: str | None
    private_key_path: str | None
    authorization: str | None


async def connect() -> Connection:
    """A client for the cluster that KUBECONFIG names, else the one this pod runs in, else ~/.kube/config."""
    return client.ApiClient(await _configuration())


async def credentials() -> Credentials:
    """The same choice as `connect`, read afresh: tokens of pods are replaced every hour."""
    found = await _configuration()
    return Credentials(
        server=found.host,
        ca_path=found.ssl_ca_cert,
        ca_data=found.ca_cert_data,
        insecure=not found.verify_ssl,
        certificate_path=found.cert_file,
        private_key_path=found.key_file,
        authorization=await found.get_api_key_with_prefix("BearerToken", "authorization"),
    )


async def _configuration() -> client.Configuration:
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = 2 * WRITES_AT_A_TIME + SIZES_AT_A_TIME
    # The client would look into the environment and .netrc for each request, in two other threads: two thirds
    # of what a request costs us. The watches do not do it either.
    configuration.client_session_kwargs = {"trust_env": False}
    named = os.environ.get("KUBECONFIG")
    try:
        if named or not os.environ.get("KUBERNETES_SERVICE_HOST"):
            load: Callable[..., Awaitable[Any]] = config.load_kube_config
            await load(named or None, client_configuration=configuration, persist_config=False)
        else:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        message = f"No cluster is known: set KUBECONFIG, or run in a pod ({error})"
        raise NoCluster(message) from error
    return configuration
