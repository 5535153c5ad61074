from dlrproxy.mo.conversations import Conversations


def test_the_gateway_that_last_wrote_to_the_subscriber_from_the_number_is_answered():
    table = Conversations(60)
    table.note(b"7000", b"4477", "gw1", 0)
    table.note(b"7000", b"4477", "gw2", 1)
    table.note(b"7001", b"4477", "gw3", 2)
    assert table.gateway(b"7000", b"4477", 3) == "gw2"
    assert table.gateway(b"7001", b"4477", 3) == "gw3"
    assert table.gateway(b"7000", b"4478", 3) is None


def test_a_conversation_ends():
    table = Conversations(60)
    table.note(b"7000", b"4477", "gw1", 0)
    assert table.gateway(b"7000", b"4477", 59.9) == "gw1"
    assert table.gateway(b"7000", b"4477", 60) is None


def test_with_nothing_to_keep_it_is_off():
    assert not Conversations(0).enabled
    assert Conversations(1).enabled


def test_beyond_the_bound_who_was_silent_for_longest_is_forgotten_and_counted():
    table = Conversations(60, most=10)
    forgotten = sum(table.note(b"7000", b"%d" % n, "gw1", n) for n in range(100))
    assert len(table) <= 10
    assert [n for n in range(100) if table.gateway(b"7000", b"%d" % n, 50)] == [95, 96, 97, 98, 99]
    assert forgotten == 95


def test_who_goes_on_talking_is_not_forgotten():
    table = Conversations(60, most=10)
    for n in range(100):
        table.note(b"7000", b"%d" % n, "gw1", 0)
        table.note(b"7000", b"anna", "gw2", 0)
    assert table.gateway(b"7000", b"anna", 1) == "gw2"


def test_what_is_over_is_not_counted_as_forgotten():
    table = Conversations(60, most=10)
    assert sum(table.note(b"7000", b"%d" % n, "gw1", n * 100) for n in range(100)) == 0
