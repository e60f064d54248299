"""Extension list, compiler flags and Cython directives; the rest is in pyproject.toml.

Environment:
  PASSIVX_DEBUG=1      -O0 -g, bounds checks and assertions on
  PASSIVX_MARCH=NAME   adds -march=NAME (x86-64-v2, native, ...); the default build is portable
  PASSIVX_ANNOTATE=1   writes Cython's annotated HTML beside the generated C
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("PASSIVX_DEBUG") == "1"
MARCH = os.environ.get("PASSIVX_MARCH", "")
MODE = "debug" if DEBUG else "release"

if sys.platform == "win32":
    flags = ["/Od", "/Zi"] if DEBUG else ["/O2"]
    flags.append("/fp:precise")
else:
    flags = ["-O0", "-g"] if DEBUG else ["-O2"]
    # A fused multiply-add changes the last digits of a long EMA: results must be the same on any
    # processor.
    flags += ["-ffp-contract=off", "-Wall", "-Wno-unused-function"]
    if MARCH:
        flags.append(f"-march={MARCH}")

extensions = [
    Extension(
        f"passivx._core.{path.stem}",
        [path.as_posix()],
        extra_compile_args=flags,
        define_macros=[("PASSIVX_DEBUG", "1" if DEBUG else "0")],
    )
    for path in sorted(Path("passivx/_core").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        # One folder a mode: cythonize does not notice a changed directive.
        build_dir=f"build/cython-{MODE}",
        annotate=os.environ.get("PASSIVX_ANNOTATE") == "1",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "initializedcheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "embedsignature": True,
            "freethreading_compatible": True,
        },
    ),
)
