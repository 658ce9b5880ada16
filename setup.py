"""The C extensions, which setup.cfg cannot declare. Optional: without a compiler Python stand-ins are used."""

from pathlib import PurePosixPath

from setuptools import Extension, setup


def extension(source: str, *headers: str) -> Extension:
    """The module that `source` is, with the headers beside it."""
    path = PurePosixPath(source)
    return Extension(
        ".".join(path.with_suffix("").parts),
        sources=[source],
        depends=[str(path.with_name(header)) for header in headers],
        extra_compile_args=["-O2", "-Wall", "-Wextra", "-std=gnu11"],
        optional=True,
    )


setup(
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
    ]
)
