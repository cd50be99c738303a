"""Build trees: which objects of a build an extension module is linked from.

A build that Ninja runs (meson, CMake) has a file that says it, `jitlink.build_trees.ninja`. One of
setuptools has nothing but its objects, and `jitlink.build_trees.objects` finds out.
"""
