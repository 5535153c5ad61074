"""A first batch of `make fuzz-peers`: a node between an SMSC and a gateway of other people, byte for byte both ways."""

import pytest

from fuzz.foreign import play

pytestmark = [pytest.mark.foreign, pytest.mark.processes]


async def test_whatever_their_encoders_make_arrives_as_it_was_sent(capsys):
    status = await play(0, 1)
    assert status == 0, capsys.readouterr().out
