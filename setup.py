"""The C extensions, which setup.cfg cannot declare. Optional: without a compiler Python stand-ins are used.

They keep to the limited API, so that one wheel serves every Python from 3.11 on. What is built for free threads alone
has no limited API, and gets extensions of its own.
"""

import sysconfig
from pathlib import Path, PurePosixPath
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")
OLDEST = (3, 11)


class BuildExtensions(build_ext):
    """Beside the sources, nothing is left of extensions for one Python, which imports prefer to those for all."""

    def copy_extensions_to_source(self) -> None:
        """Copy what was built beside the sources, as an installation that can be edited has it."""
        for extension in self.extensions:
            source = Path(extension.sources[0])
            built = Path(self.get_ext_filename(self.get_ext_fullname(extension.name))).name
            for old in source.parent.glob(f"{source.stem}.*.so"):
                if old.name != built:
                    old.unlink()
        super().copy_extensions_to_source()


def extension(source: str, *headers: str) -> Extension:
    """The module that `source` is, with the headers beside it."""
    path = PurePosixPath(source)
    limits: dict[str, Any] = {}
    if LIMITED:
        limits = {
            "py_limited_api": True,
            "define_macros": [("Py_LIMITED_API", f"0x{OLDEST[0]:02X}{OLDEST[1]:02X}0000")],
        }
    return Extension(
        ".".join(path.with_suffix("").parts),
        sources=[source],
        depends=[str(path.with_name(header)) for header in headers],
        extra_compile_args=["-O2", "-Wall", "-Wextra", "-std=gnu11"],
        optional=True,
        **limits,
    )


setup(
    cmdclass={"build_ext": BuildExtensions},
    options={"bdist_wheel": {"py_limited_api": f"cp{OLDEST[0]}{OLDEST[1]}"}} if LIMITED else {},
    ext_modules=[
        extension(
            "kvbench/timed_io/_stopwatch.c",
            "_batch.h",
            "_batch_calls.h",
            "_meter.h",
            "_operations.h",
            "_ring.h",
            "_ring_batch.h",
            "_ring_calls.h",
            "_ring_workers.h",
        ),
        extension(
            "kvbench/cache/chains/_core.c",
            "_arrays.h",
            "_asked.h",
            "_blocks.h",
            "_decide.h",
            "_ghosts.h",
            "_kinds.h",
            "_prefetch.h",
            "_queues.h",
            "_table.h",
        ),
        extension("kvbench/cache/chains/_curves.c", "_table.h"),
    ],
)
