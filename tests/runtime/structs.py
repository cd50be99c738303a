"""Structs that calls pass by value, one for each way to pass them, as ctypes and C declare them."""

import ctypes as c

DECLARATIONS = """
struct small { int a; double b; };
struct pair { float x, y; };
struct big { long a[5]; };
"""


class Small(c.Structure):
    """In two registers of different classes."""

    _fields_ = (("a", c.c_int), ("b", c.c_double))


class Pair(c.Structure):
    """In one floating-point register."""

    _fields_ = (("x", c.c_float), ("y", c.c_float))


class Big(c.Structure):
    """On the stack."""

    _fields_ = (("a", c.c_long * 5),)
