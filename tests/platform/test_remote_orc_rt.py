"""LLVM's ORC runtime in executors that are other processes: as in this process."""

from functools import partial

import pytest

from tests.executor.remote.executors import PIPES, Setting, started
from tests.platform import test_orc_rt
from tests.platform.test_orc_rt import (  # noqa: F401 - with the executors below
    test_a_jitdylib_that_was_cleared_is_registered_again,
    test_a_program_may_fail_to_open_a_jitdylib,
    test_a_program_that_is_given_by_its_address,
    test_a_program_without_its_entry,
    test_a_python_exception_in_an_initialiser_is_raised,
    test_code_is_added_to_an_open_jitdylib_and_removed,
    test_ctors_run_backwards_and_preinit_first,
    test_dependencies_are_opened_first_and_what_is_open_only_updated,
    test_initialisers_that_cannot_be_linked_raise_the_error_of_the_link,
    test_the_last_one_opened_is_closed_first_at_the_end,
    test_thread_local_variables_of_two_objects,
    test_what_is_open_is_closed_when_its_jitdylib_is_removed,
)


@pytest.fixture(
    params=[s for s in PIPES if s.memory == ("generic" if s.kind == "llvm19" else "shared")],
    ids=str,
    autouse=True,
)
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(test_orc_rt, "executors", partial(started, request.param))
    chosen: Setting = request.param
    return chosen
