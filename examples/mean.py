"""Calls the C function of mean.o, linked into this process, on a NumPy array."""

import ctypes

import numpy as np

import jitlink

values = np.array([1.0, 2.0, 6.0])

with jitlink.load("mean.o") as library:
    library.mean.argtypes = [ctypes.POINTER(ctypes.c_double), ctypes.c_size_t]
    library.mean.restype = ctypes.c_double
    pointer = values.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    print("mean:", library.mean(pointer, len(values)))
