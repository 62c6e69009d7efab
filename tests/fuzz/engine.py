"""Runs one target under libFuzzer: `python -m tests.fuzz.engine TARGET [libFuzzer options and folders]`.

Only with the sanitizer's library preloaded, as `run.sh` does. The extensions bring their own coverage. Of Python, the
doors are instrumented where they are the subject; and of the oracle, chunks, because its branches are states of a table
in C. All of Python would be ten times slower and find no more.
"""

import importlib
import logging
import sys
from contextlib import nullcontext

import atheris

from tests.fuzz import opinions
from tests.oracle.http1 import Reader

IN_DOORS = ("event", "answer")
OF_THE_ORACLE = ("chunks", "chunk_line", "extension", "quoted", "token")


def main() -> None:
    assert opinions.h11, "h11 and httptools are needed"
    logging.disable()
    name = sys.argv.pop(1)
    doors = atheris.instrument_imports(include=["cpro.doors"], enable_loader_override=False)
    with doors if name in IN_DOORS else nullcontext():
        target = importlib.import_module(f"tests.fuzz.targets.{name}")
    for method in OF_THE_ORACLE:
        atheris.instrument_func(getattr(Reader, method))
    # how libFuzzer starts itself again, to merge or to minimise
    sys.argv[0] = f"{sys.executable} -m tests.fuzz.engine {name}"
    atheris.Setup(sys.argv, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
