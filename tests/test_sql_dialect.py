"""How MariaDB and MySQL are told apart, and how their positions are compared."""

import pytest

from dlrproxy.store.sql.dialect import MARIADB, MYSQL, dialect_of, includes


def test_a_server_is_spoken_to_in_its_own_words():
    assert dialect_of("10.11.6-MariaDB-0+deb12u1-log") is MARIADB
    assert dialect_of("8.0.36") is MYSQL


@pytest.mark.parametrize(
    ("position", "part", "has"),
    [
        ("0-1-5", "0-2-5", True),
        ("0-1-4", "0-2-5", False),
        ("0-1-5,1-2-7", "1-1-7", True),
        ("0-1-5", "0-1-5,1-1-1", False),
        ("0-1-5", "", True),
        ("", "0-1-1", False),
        ("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23", "3e11fa47-71ca-11e1-9e33-c80aa9429562:22-23", True),
        ("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-21,\n0:1", "3e11fa47-71ca-11e1-9e33-c80aa9429562:22", False),
        ("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3:5-9", "3e11fa47-71ca-11e1-9e33-c80aa9429562:9", True),
    ],
)
def test_positions_are_compared_by_their_numbers(position, part, has):
    assert includes(position, part) is has
