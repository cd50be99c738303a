"""The emulated executor: linked code runs in a processor that Unicorn emulates."""
