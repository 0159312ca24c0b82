"""Tables in Markdown."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int | None = None) -> str:
    """The first ``words`` columns flush left, the others, which hold numbers, flush right; None: all hold words."""
    left = len(head) if words is None else words
    lines = [head, [*["---"] * left, *["---:"] * (len(head) - left)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
