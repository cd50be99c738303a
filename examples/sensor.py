"""Links the C code of sensor.o against a function that is implemented in Python."""

import ctypes

import jitlink

readings = {0: 17, 1: 42, 2: 23}

read_sensor_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)

with jitlink.LLJIT() as jit:
    jit.define({"read_sensor": (readings.__getitem__, read_sensor_type)})
    jit.add_object("sensor.o")
    highest = jit.lookup("highest")
    print("highest of 3 channels:", highest(3))
    try:
        highest(4)
    except KeyError as error:
        print("no channel", error)
