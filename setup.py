"""Build of the one C extension; everything else is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "qatqfs.codec._native",
            sources=["qatqfs/codec/_native.c"],
            depends=[
                "qatqfs/codec/_fnv.h",
                "qatqfs/codec/_fnv_x86.h",
                "qatqfs/codec/_huffman.h",
                "qatqfs/codec/_stats.h",
            ],
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra", "-fno-strict-aliasing"],
        )
    ]
)
