"""Links the object of a function when the function is first called, then replaces the function.

Usage: lazy.py lazy-caller.o lazy-body.o
"""

import ctypes
import sys

from jitlink.orc import (
    CallSiteRecorder,
    ExecutionSession,
    IndirectStubsManager,
    MaterializationResponsibility,
    ObjectLinkingLayer,
    Plugin,
    RedirectableSymbolManager,
    lazy_reexports,
)

caller_object, body_object = sys.argv[1:]


class Announcer(Plugin):
    """Prints what is linked."""

    def notify_emitted(self, responsibility: MaterializationResponsibility) -> None:
        """Print the names that a link defines."""
        print("linked:", responsibility.unit_name.rpartition("/")[2], *responsibility.symbols)


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)
def circumference(width: int, height: int) -> int:
    """What the function is replaced by."""
    return 2 * (width + height)


replacement = ctypes.cast(circumference, ctypes.c_void_p).value or 0

with ExecutionSession() as session:
    layer = ObjectLinkingLayer(session)
    layer.add_plugin(Announcer())
    recorder = CallSiteRecorder(["area"])
    layer.add_plugin(recorder)
    stubs = IndirectStubsManager(layer)

    # The body is where the caller does not find it; what the caller finds is a stub.
    main, bodies = session.create_jitdylib("main"), session.create_jitdylib("bodies")
    layer.add_object(main, caller_object)
    layer.add_object(bodies, body_object)
    main.define(lazy_reexports(stubs, bodies, {"area": "area"}))

    room = ctypes.CFUNCTYPE(ctypes.c_int)(session.lookup(main, "room")["room"].address)
    print("nobody has called it yet")
    print("room:", room())

    # From now on the call goes straight to the function, not through the stub.
    calls = recorder.repoint("area", session.lookup(bodies, "area")["area"].address)
    print("calls repointed:", calls)
    print("room:", room())

    # What is called through a stub can be replaced at any time, by what may be anywhere.
    recorder.repoint("area", session.lookup(main, "area")["area"].address)
    RedirectableSymbolManager(stubs).redirect(main, {"area": replacement})
    print("room:", room())
