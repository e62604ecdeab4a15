"""The other end of a webhook: a real HTTP server on a port of its own.

Owns answering as it is told and keeping what it was sent; never judges it.
"""

import http.server
import json
import threading
from typing import Any


class WebhookReceiver:
    """Answers every request with `status` and `headers`; use as a context manager."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        #: (path, headers, JSON body) of each request, in order.
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        #: While set, requests are taken and not answered.
        self.silent = threading.Event()
        self._released = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """Its address, with a path and a query as webhooks have them."""
        return f"http://127.0.0.1:{self._server.server_port}/hooks/secret-token?key=abc"

    def __enter__(self) -> "WebhookReceiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self.go_away()

    def go_away(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                receiver.requests.append((self.path, dict(self.headers), json.loads(body or b"null")))
                if receiver.silent.is_set():
                    receiver._released.wait(10)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - named by the standard library

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler
