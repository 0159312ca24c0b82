"""A strict reader of the HTML that reports are: what is wrong with a page, and what stands in it."""

from html.parser import HTMLParser

VOID = {"meta"}


class Page(HTMLParser):
    """``text``: all text outside of the style; ``ids``, ``links``; ``tags``: how often each occurs. Raises where tags
    do not match, an id comes twice, or anything is fetched from somewhere."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: dict[str, int] = {}
        self._open: list[str] = []
        assert source.startswith("<!DOCTYPE html>\n")
        self.feed(source)
        self.close()
        assert self._open == [], self._open
        assert len(set(self.ids)) == len(self.ids)
        for link in self.links:
            assert link.startswith("#")
            assert link[1:] in self.ids

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "style", "data", "action"), name
            if name in ("href", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name in ("aria-labelledby",):
                self.links += [f"#{each}" for each in (value or "").split()]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
        elif data.strip():
            self.text.append(data.strip())

    @property
    def said(self) -> str:
        return " ".join(self.text)
