"""JITDylibs in executors that are other processes, of other processors too: as in this process."""

from collections.abc import Iterator

import pytest

from jitlink.executor import RemoteExecutorProcessControl
from tests.executor.remote.executors import FOREIGN, PIPES, Setting, started
from tests.orc.units import time_limit
from tests.platform import jits
from tests.platform.jits import NotingJIT
from tests.platform.test_dlfcn import (  # noqa: F401 - with the fixtures below
    caller,
    plugin,
    test_a_failed_link_is_an_error,
    test_a_jitdylib_without_code_can_be_opened,
    test_a_program_may_define_its_own,
    test_an_initializer_may_call_python_that_calls_what_opens_another,
    test_an_initializer_may_open_another,
    test_an_initializer_may_open_another_through_python,
    test_an_initializer_may_open_its_own_jitdylib,
    test_dlclose_does_not_release_what_initialize_holds,
    test_hidden_symbols_are_not_found,
    test_initialize_and_dlopen_each_hold_a_reference,
    test_no_name_is_the_caller_itself,
    test_opening_counts,
    test_threads_open_and_close,
    test_updating_runs_what_was_added,
    test_what_does_not_exist_is_an_error,
    test_what_runs_at_the_end_may_open_and_close,
)
from tests.platform.test_elf import (  # noqa: F401 - likewise
    test_a_cleared_jitdylib_can_be_used_again,
    test_a_failed_link_leaves_no_initializer_behind,
    test_a_finalizer_may_use_the_session_while_its_code_is_removed,
    test_a_graph_may_have_initializers,
    test_a_handler_of_removed_code_runs_though_others_registered_it,
    test_a_link_that_fails_when_it_is_complete_has_no_initialisers,
    test_a_removed_jitdylib_is_finalized,
    test_a_shared_object_of_two_links_is_constructed_once,
    test_a_tracker_may_change_its_owner,
    test_an_initialized_jitdylib_can_be_closed_and_opened_again,
    test_an_initializer_may_use_the_session,
    test_an_object_without_symbols_is_run,
    test_circles_are_closed_at_once,
    test_dependencies_come_first_and_go_last,
    test_each_jitdylib_has_one_handle,
    test_handlers_without_initializers_run_too,
    test_initialisers_are_linked_without_a_lookup_and_run_once,
    test_initialisers_removed_before_they_ran_never_run,
    test_members_of_archives_are_run_if_they_are_needed,
    test_objects_are_in_order_of_addition_however_they_were_linked,
    test_priorities_count_over_all_objects,
    test_removed_code_is_finalized_before_its_memory_is_deallocated,
    test_the_handle_of_a_link_that_fails_when_it_is_complete,
    test_the_handle_of_a_program_that_is_transferred_and_removed,
    test_threads_may_initialize_at_the_same_time,
    test_what_callbacks_raise_is_raised,
    test_what_follows_a_failure_is_run_later,
    test_what_is_added_later_runs_with_the_next_call,
    test_what_something_else_needs_stays_open,
)

# Kinds of memory make no difference here; LLVM's executors have a thread for each call.
SETTINGS = [s for s in (*PIPES, *FOREIGN) if s.memory == "shared" and not s.kind.startswith("llvm")]


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def place(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[Setting, RemoteExecutorProcessControl]]:
    """An executor for all tests, which leave nothing in it."""
    with started(request.param) as executor:
        yield request.param, executor


@pytest.fixture
def jit(
    place: tuple[Setting, RemoteExecutorProcessControl], monkeypatch: pytest.MonkeyPatch
) -> Iterator[NotingJIT]:
    setting, executor = place
    monkeypatch.setattr(jits, "TARGET", setting.target)
    with time_limit():
        created = NotingJIT(executor)
        try:
            yield created
        finally:
            created.close()
            created.space.close()
