"""Build of the one C extension; everything else is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "qatqfs.codec._native",
            sources=["qatqfs/codec/_native.c"],
            depends=[
                f"qatqfs/codec/_{name}.h"
                for name in ("fnv", "fnv_x86", "fse", "histogram", "huffman", "matches", "stats")
            ],
            libraries=["m"],
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra", "-fno-strict-aliasing"],
        )
    ]
)
