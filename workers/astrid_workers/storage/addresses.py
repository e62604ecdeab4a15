"""Which internet addresses may be connected to.

Owns the rule that only addresses of the public internet are; never resolves a name.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

#: IPv6 networks that carry an IPv4 address in their last 32 bits, which then decides (RFC 6052, RFC 4291).
_CARRYING_IPV4 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))
#: Set aside by IETF for protocols (RFC 6890); some clouds put their metadata service there. Not every
#: Python's `is_global` leaves all of it out.
_PROTOCOLS = IPv4Network("192.0.0.0/24")


def is_public(address: str) -> bool:
    """Whether `address` is one of the public internet.

    Loopback, private, link-local (cloud metadata services among them), shared, multicast, reserved and
    unspecified addresses are not, nor are IPv6 addresses that stand for such an IPv4 address, nor other text.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    carried = _carried_ipv4(parsed)
    if carried is not None:
        return is_public(str(carried))
    is_odd = parsed.is_site_local if isinstance(parsed, IPv6Address) else parsed in _PROTOCOLS
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or is_odd)


def _carried_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _CARRYING_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
