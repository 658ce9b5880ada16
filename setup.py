"""The C extension, which setup.cfg cannot declare. Optional: without a compiler the Python stand-in is used."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "kvbench.timed_io._stopwatch",
            sources=["kvbench/timed_io/_stopwatch.c"],
            depends=["kvbench/timed_io/_meter.h", "kvbench/timed_io/_operations.h"],
            extra_compile_args=["-O2", "-Wall", "-Wextra", "-std=gnu11"],
            optional=True,
        )
    ]
)
