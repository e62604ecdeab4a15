"""An address of a Redis as it may be shown.

Owns what is left out of it. Never connects, and imports nothing: every verb may show one.
"""


def redacted(url: str) -> str:
    """`url` without its user and password, fit for logs, status and events."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "(address withheld)"
    authority, slash, path = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    path = path.partition("?")[0]
    return f"{scheme}://{'***@' if at and credentials else ''}{host}{slash}{path}"
