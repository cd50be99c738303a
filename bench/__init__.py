"""Benchmarks: the time from objects, on disk or given to a session, to a callable address.

`python -m bench` (from the repository's root) measures jitlink and its peers in one run, on the
same files, interleaved, and prints medians, ratios, peak memory, growth, and which targets are met.
With another tree's `src` on `PYTHONPATH`, it measures that jitlink. It is not part of the
package or of its tests; beyond Python it needs Debian's `clang-22`, `llvm-22`, `libllvm22`,
`lld-22`, `mold`, `libsqlite3-dev`, `llvm-22-dev` and `libgrpc++-dev`, and `llvmlite` from PyPI. A
missing peer, or a row's missing input, is shown as missing.
"""
