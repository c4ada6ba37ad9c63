"""What tests read in an HTML page."""

import re
from html.parser import HTMLParser

from support.optional import not_none


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


def table_of(page: str, name: str) -> list[list[str]]:
    """Return the cells of a table's body, without tags.

    Args:
        page: the HTML.
        name: the table's ``data-`` attribute.
    """
    body = not_none(re.search(rf"<table data-{name}>.*?<tbody>(.*?)</tbody>", page, re.DOTALL))[1]
    rows = re.findall(r"<tr.*?>(.*?)</tr>", body, re.DOTALL)
    return [
        [
            " ".join(re.sub(r"<[^>]+>", "", cell).split())
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        ]
        for row in rows
    ]
