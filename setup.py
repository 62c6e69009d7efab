"""The extension modules; everything else stands in pyproject.toml.

CPRO_DEBUG=1 builds with bounds checks, overflow checks and assertions, into a build folder of its own.
CPRO_SANITIZE=1 adds sanitizers (address, undefined behaviour) and coverage for libFuzzer; see tests/fuzz/run.sh.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("CPRO_SANITIZE") == "1"
DEBUG = SANITIZE or os.environ.get("CPRO_DEBUG") == "1"
BUILD = "build/sanitize" if SANITIZE else "build-debug" if DEBUG else "build"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "overflowcheck": False,
    "cdivision": True,
    "embedsignature": True,
}
C_FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
C_FLAGS += ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"] if DEBUG else ["-O2", "-g0"]
if SANITIZE:
    C_FLAGS += ["-fsanitize=address,undefined,fuzzer-no-link", "-fno-sanitize-recover=undefined"]

C_FLAGS_OF = {} if DEBUG else {"columns": ["-O3"]}  # a tenth less of its time, by benchmarks.analytics

extensions = [
    Extension(f"cpro._fast.{source.stem}", [str(source)], extra_compile_args=C_FLAGS + C_FLAGS_OF.get(source.stem, []))
    for source in sorted(Path("src/cpro/_fast").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir=f"{BUILD}/cython",
        include_path=["src"],
        compiler_directives=DIRECTIVES,
        show_all_warnings=True,
    ),
    options={"build": {"build_base": BUILD}},
)
