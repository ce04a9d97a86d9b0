"""Build of the one C extension; everything else is in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "qatqfs.codec._native",
            sources=["qatqfs/codec/native/module.c"],
            depends=sorted(glob("qatqfs/codec/native/*.h")),
            libraries=["m", "zstd"],
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra", "-fno-strict-aliasing"],
        )
    ]
)
