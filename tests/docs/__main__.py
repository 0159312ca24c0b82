"""``make docs``: writes every page whose figures are computed."""

import sys

from tests.docs.pages import PAGES


def main() -> int:
    for page in PAGES:
        if page.is_possible:
            page.path.write_text(page.render(), encoding="utf-8")
        else:
            print(f"{page.name} stays as it is: what it is computed from is not here.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
