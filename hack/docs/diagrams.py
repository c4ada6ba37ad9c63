"""Draw docs/diagrams/*.d2 as docs/images/*.svg: ``python -m hack.docs.diagrams``.

Each picture ends with the digest of its source, so that a stale picture is noticed without drawing it again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from hack.cluster import lifecycle, settings, toolchain
from hack.cluster.shell import ClusterError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs" / "diagrams"
PICTURES = ROOT / "docs" / "images"
STYLES = "styles"
"""The source that all others include."""
OPTIONS = ("--layout=elk", "--elk-nodeNodeBetweenLayers=44", "--theme=0", "--pad=12")


def sources() -> list[Path]:
    """Return the sources of all pictures."""
    return sorted(path for path in SOURCES.glob("*.d2") if path.stem != STYLES)


def picture(source: Path) -> Path:
    """Return the path of a source's picture."""
    return PICTURES / f"{source.stem}.svg"


def stamp(source: Path) -> str:
    """Return the last line of a picture of this source."""
    styles = source.with_stem(STYLES).read_bytes()
    digest = hashlib.sha256(styles + source.read_bytes() + " ".join(OPTIONS).encode()).hexdigest()
    return f"<!-- drawn from {source.name}, sha256 {digest} -->"


def is_current(source: Path) -> bool:
    """Whether the picture was drawn from the current source."""
    drawn = picture(source)
    return drawn.exists() and drawn.read_text().rstrip().endswith(stamp(source))


def draw(source: Path) -> None:
    """Draw one source."""
    drawn = picture(source)
    subprocess.run([str(settings.BIN / "d2"), *OPTIONS, str(source), str(drawn)], check=True)
    drawn.chmod(0o644)
    drawn.write_text(f"{drawn.read_text().rstrip()}\n{stamp(source)}\n")


def main() -> int:
    """Draw the outdated pictures, and return the exit status."""
    outdated = [source for source in sources() if not is_current(source)]
    try:
        if outdated:
            with lifecycle.exclusive():
                toolchain.ensure_programs("d2")
        for source in outdated:
            draw(source)
    except (ClusterError, subprocess.CalledProcessError) as error:
        print(f"diagrams: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
