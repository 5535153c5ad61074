"""data_dir/state: what a script reads of a node's role, and how old it is."""

import os

from dlrproxy.state_file import Service, StateFile


def test_it_says_the_role_the_epoch_and_what_the_node_does(tmp_path):
    state = StateFile(tmp_path, lambda: 70.5)
    state.show("standby", 3, Service.IDLE)
    assert (tmp_path / "state").read_text() == "standby 3 idle 70\n"
    state.show("active", 4, Service.SERVING)
    assert (tmp_path / "state").read_text() == "active 4 serving 70\n"
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_it_is_as_new_as_the_last_time_that_it_was_shown(tmp_path):
    state = StateFile(tmp_path, lambda: 70.5)
    state.show("standby", 3, Service.IDLE)
    os.utime(tmp_path / "state", (1, 1))
    state.show("standby", 3, Service.IDLE)
    assert (tmp_path / "state").stat().st_mtime > 1_000_000


def test_it_says_since_when_it_is_so(tmp_path):
    now = 70.0
    state = StateFile(tmp_path, lambda: now)
    state.show("active", 4, Service.STARTING)
    now = 80.0
    state.show("active", 4, Service.STARTING)
    (tmp_path / "state").unlink()
    state.show("active", 4, Service.STARTING)
    assert (tmp_path / "state").read_text() == "active 4 starting 70\n"
    state.show("active", 4, Service.STARTING_ALONE)
    assert (tmp_path / "state").read_text() == "active 4 starting-alone 80\n"
    now = 90.0
    state.show("active", 4, Service.STARTING)
    assert (tmp_path / "state").read_text() == "active 4 starting 90\n"


def test_it_is_replaced_never_half_written(tmp_path):
    state = StateFile(tmp_path, lambda: 70.5)
    state.show("standby", 3, Service.IDLE)
    with (tmp_path / "state").open() as reader:
        state.show("active", 4, Service.SERVING)
        assert reader.read() == "standby 3 idle 70\n"


def test_one_that_somebody_has_removed_comes_back(tmp_path):
    state = StateFile(tmp_path, lambda: 70.5)
    state.show("standby", 3, Service.IDLE)
    (tmp_path / "state").unlink()
    state.show("standby", 3, Service.IDLE)
    assert (tmp_path / "state").read_text() == "standby 3 idle 70\n"


def test_a_node_that_ends_in_good_order_leaves_none(tmp_path):
    state = StateFile(tmp_path, lambda: 70.5)
    state.show("standby", 3, Service.IDLE)
    state.remove()
    state.remove()
    assert not list(tmp_path.iterdir())


def test_a_node_that_has_ended_does_not_show_itself_again(tmp_path):
    state = StateFile(tmp_path, lambda: 70.5)
    state.show("active", 3, Service.SERVING)
    state.remove()
    state.show("standby", 3, Service.IDLE)  # by a thread that nobody has waited for
    assert not list(tmp_path.iterdir())
