"""Plugin packages in folders for PYTHONPATH: throw-away ones, and those of this repository as pip installs them."""

import os
import shutil
import subprocess
import sys
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


def install(package: Path, folder: Path) -> dict[str, str]:
    """Have pip install a package of this repository below `folder`; the environment in which a process finds it."""
    source = folder / "source"  # pip builds where the source is
    shutil.copytree(package, source, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build"))
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "--target", str(folder / "site"), str(source)], check=True)
    return with_packages(folder / "site")
