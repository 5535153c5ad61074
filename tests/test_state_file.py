"""data_dir/state: what a script reads of a node's role, and how old it is."""

import os

from dlrproxy.state_file import StateFile


def test_it_says_the_role_and_the_epoch(tmp_path):
    state = StateFile(tmp_path)
    state.show("standby", 3)
    assert (tmp_path / "state").read_text() == "standby 3\n"
    state.show("active", 4)
    assert (tmp_path / "state").read_text() == "active 4\n"
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_it_is_as_new_as_the_last_time_that_it_was_shown(tmp_path):
    state = StateFile(tmp_path)
    state.show("standby", 3)
    os.utime(tmp_path / "state", (1, 1))
    state.show("standby", 3)
    assert (tmp_path / "state").stat().st_mtime > 1_000_000


def test_it_is_replaced_never_half_written(tmp_path):
    state = StateFile(tmp_path)
    state.show("standby", 3)
    with (tmp_path / "state").open() as reader:
        state.show("active", 4)
        assert reader.read() == "standby 3\n"


def test_one_that_somebody_has_removed_comes_back(tmp_path):
    state = StateFile(tmp_path)
    state.show("standby", 3)
    (tmp_path / "state").unlink()
    state.show("standby", 3)
    assert (tmp_path / "state").read_text() == "standby 3\n"


def test_a_node_that_ends_in_good_order_leaves_none(tmp_path):
    state = StateFile(tmp_path)
    state.show("standby", 3)
    state.remove()
    state.remove()
    assert not list(tmp_path.iterdir())


def test_a_node_that_has_ended_does_not_show_itself_again(tmp_path):
    state = StateFile(tmp_path)
    state.show("active", 3)
    state.remove()
    state.show("standby", 3)  # by a thread that nobody has waited for
    assert not list(tmp_path.iterdir())
