"""External addresses of an HTML page."""

from html.parser import HTMLParser


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def external_addresses(page: str) -> list[str]:
    """Return the addresses in tags that lead outside of the page."""
    parser = _Addresses()
    parser.feed(page)
    return [address for address in parser.found if not address.startswith(("data:", "#"))]
