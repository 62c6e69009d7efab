"""Throw-away plugin packages: a module, and the metadata that pip would have left, in a folder for PYTHONPATH."""

import os
import textwrap
from pathlib import Path


def write_plugin(folder: Path, name: str, source: str, target: str = "", package: str = "") -> None:
    """An installed package with one plugin: the module `source`, under entry point `name`."""
    package = package or f"cpro-{name}"
    module = package.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[cpro]\n{name} = {target or module}\n")


def with_packages(folder: Path) -> dict[str, str]:
    """Environment in which a process finds them."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}:{before}" if before else str(folder)}
