"""What is found wrong with the settings of a Galera node."""

import pytest

from dlrproxy.store.sql.galera_check import findings, options_of, seconds

OPTIONS = {
    "evs.suspect_timeout": "PT1S", "evs.inactive_timeout": "PT2S", "pc.ignore_quorum": "false", "pc.ignore_sb": "false",
    "pc.weight": "1",
}  # fmt: skip
SOUND = {
    "wsrep_on": "ON", "binlog_format": "ROW", "wsrep_dirty_reads": "OFF", "innodb_autoinc_lock_mode": "2",
    "wsrep_osu_method": "TOI", "wsrep_sst_method": "mariabackup",
}  # fmt: skip


def found(options=(), **settings):
    options = "; ".join(f"{name} = {value}" for name, value in {**OPTIONS, **dict(options)}.items())
    variables = {**SOUND, **settings, "wsrep_provider_options": f"base_dir = /var/lib/mysql/; {options}; "}
    return {finding.setting: finding for finding in findings(variables, fence_after_s=6.0, weight=1)}


def test_a_sound_node_is_found_sound():
    assert found() == {}


@pytest.mark.parametrize(
    ("setting", "value", "fatal"),
    [
        ("wsrep_on", "OFF", True),
        ("binlog_format", "MIXED", True),
        ("wsrep_dirty_reads", "ON", True),
        ("innodb_autoinc_lock_mode", "1", False),
        ("wsrep_osu_method", "RSU", False),
        ("wsrep_sst_method", "rsync", False),
        ("wsrep_sst_method", "skip", False),
    ],
)
def test_a_setting_that_is_wrong_is_named_with_its_risk(setting, value, fatal):
    (finding,) = found(**{setting: value}).values()
    assert (finding.setting, finding.value, finding.fatal) == (setting, value, fatal)
    assert finding.should
    assert finding.risk


@pytest.mark.parametrize(
    ("option", "value", "fatal"),
    [
        ("pc.ignore_quorum", "true", True),
        ("pc.ignore_sb", "YES", True),
        ("pc.weight", "3", False),
        ("evs.suspect_timeout", "PT5S", False),
        ("evs.inactive_timeout", "PT15S", False),
    ],
)
def test_an_option_of_the_provider_is_named_like_a_setting(option, value, fatal):
    (finding,) = found({option: value}).values()
    assert (finding.setting, finding.value, finding.fatal) == (option, value, fatal)


def test_time_outs_are_measured_by_the_fence():
    assert found({"evs.inactive_timeout": "PT2.5S"})["evs.inactive_timeout"].should == "at most PT2S"
    variables = {"wsrep_provider_options": "evs.inactive_timeout = PT2.5S"}
    assert findings(variables, fence_after_s=9.0, weight=1) == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [("PT15S", 15), ("PT0.5S", 0.5), ("PT1M", 60), ("PT1H30M", 5400), ("P1DT1S", 86_401), ("soon", float("inf"))],
)
def test_durations(written, meant):
    assert seconds(written) == meant


def test_options_without_a_value_are_passed_over():
    assert options_of("a = 1; b; C= x = y ;") == {"a": "1", "c": "x = y"}
    assert options_of("") == {}
