"""Write the pictures of docs and README: `scripts/pictures`, or `scripts/pictures FOLDER`."""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from curve import learning, pairs  # noqa: E402
from drawing import THEMES, Picture  # noqa: E402
from flows import call, commit, log, weights  # noqa: E402
from losses import losses  # noqa: E402
from reuse import reuse  # noqa: E402
from states import crash, episode, sequences  # noqa: E402

SCENES = (log, call, episode, sequences, commit, weights, crash, learning, pairs, losses, reuse)


def pictures() -> list[Picture]:
    """All of them."""
    return [scene() for scene in SCENES]


def files() -> Iterator[tuple[str, str]]:
    """(name, content) of every file."""
    for picture in pictures():
        for theme in THEMES:
            yield f"{picture.name}-{theme}.svg", picture.svg(theme)


def main() -> int:
    """Write all files; exit with 1 where texts overlap."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files():
        (folder / name).write_text(content, encoding="utf-8")
    faults = [fault for picture in pictures() for fault in picture.faults()]
    for fault in faults:
        print(f"pictures: {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
