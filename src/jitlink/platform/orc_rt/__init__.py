"""LLVM's ORC runtime, driven as LLVM's ELFNixPlatform drives it."""
