"""FITS files built card by card, so that tests can make ones that no library would write."""

BLOCK = 2880


def card(keyword: str, value: object) -> bytes:
    """One card of 80 bytes; strings are quoted, booleans are T and F."""
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = f"'{value:<8}'"
    else:
        text = f"{value!s:>20}"
    return f"{keyword:<8}= {text}".ljust(80).encode("latin-1")


def header(*cards: bytes) -> bytes:
    """Cards with END, padded to whole blocks."""
    raw = b"".join(cards) + b"END".ljust(80)
    return raw + b" " * (-len(raw) % BLOCK)


def primary(*axes: int, bitpix: int = 16, more: tuple[bytes, ...] = ()) -> bytes:
    """A primary header with these axes, x first."""
    named = [card(f"NAXIS{i + 1}", n) for i, n in enumerate(axes)]
    return header(card("SIMPLE", True), card("BITPIX", bitpix), card("NAXIS", len(axes)), *named, *more)


def image(pixels: bytes, *axes: int, bitpix: int = 16, more: tuple[bytes, ...] = ()) -> bytes:
    """A whole file of one image with these raw, big-endian pixels."""
    return primary(*axes, bitpix=bitpix, more=more) + pixels + b"\0" * (-len(pixels) % BLOCK)
