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
    """The replacement of the function."""
    return 2 * (width + height)


replacement = ctypes.cast(circumference, ctypes.c_void_p).value or 0

with ExecutionSession() as session:
    layer = ObjectLinkingLayer(session)
    layer.add_plugin(Announcer())
    recorder = CallSiteRecorder(["area"])
    layer.add_plugin(recorder)
    stubs = IndirectStubsManager(layer)

    # The body is not in the caller's link order; the caller is linked against a stub.
    main, bodies = session.create_jitdylib("main"), session.create_jitdylib("bodies")
    layer.add_object(main, caller_object)
    layer.add_object(bodies, body_object)
    main.define(lazy_reexports(stubs, bodies, {"area": "area"}))

    room = ctypes.CFUNCTYPE(ctypes.c_int)(session.lookup(main, "room")["room"].address)
    print("not called yet")
    print("room:", room())

    # Let the call go directly to the function, not through the stub.
    calls = recorder.repoint("area", session.lookup(bodies, "area")["area"].address)
    print("calls repointed:", calls)
    print("room:", room())

    # A function that is called through a stub can be replaced at any time, by one at any address.
    recorder.repoint("area", session.lookup(main, "area")["area"].address)
    RedirectableSymbolManager(stubs).redirect(main, {"area": replacement})
    print("room:", room())
