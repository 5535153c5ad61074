"""The HTTP API over TLS: who gets in, asked as a person asks it, by a command with --url."""

import os
import ssl
from functools import partial

import pytest
import structlog
import trio
import trustme
from admin_world import FakeNode, config, serving
from click.testing import CliRunner

from dlrproxy.admin.client import AdminError, Client
from dlrproxy.admin.reach import url
from dlrproxy.admin.server import serve
from dlrproxy.admin.view import NodeStatus
from dlrproxy.cli import main
from dlrproxy.secret import Secret


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
def files(tmp_path, authority):
    """The node's certificate (node), an administrator's (me) and a stranger's, with their keys; our authority (ca)."""
    directory = tmp_path / "files"
    directory.mkdir()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    for name, issuer, host in (
        ("node", authority, "127.0.0.1"),
        ("me", authority, "admin@shop.example"),
        ("stranger", trustme.CA(), "admin@shop.example"),
    ):
        issued = issuer.issue_cert(host)
        issued.cert_chain_pems[0].write_to_path(directory / f"{name}.pem")
        issued.private_key_pem.write_to_path(directory / f"{name}.key")
    (directory / "token").write_text("open-sesame\n")
    return directory


def admin(files, *, clients=True, token=False):
    lines = ["[admin]", 'listen = "127.0.0.1:0"', "tls = true"]
    lines += [f'cert_file = "{files / "node.pem"}"', f'key_file = "{files / "node.key"}"']
    if clients:
        lines.append(f'ca_file = "{files / "ca.pem"}"')
    if token:
        lines.append(f'token_file = "{files / "token"}"')
    return "\n".join(lines)


async def status(address, *options, scheme="https"):
    """What `dlrproxy status --url ...` says."""
    arguments = ["status", "--json", "--url", f"{scheme}://{address}", *map(str, options)]
    return await trio.to_thread.run_sync(partial(CliRunner().invoke, main, arguments))


def mine(files, name="me"):
    return "--ca-file", files / "ca.pem", "--cert-file", files / f"{name}.pem", "--key-file", files / f"{name}.key"


async def test_a_client_certificate_lets_a_command_in(node, tmp_path, files):
    async with serving(node, tmp_path, admin(files)) as address:
        result = await status(address, *mine(files))
    assert result.exit_code == 0, result.output
    assert '"node":"gw1"' in result.output


async def test_a_client_certificate_is_enough_under_any_name(node, tmp_path, files):
    """A web page has another name than ours in its certificate, and so cannot come as one."""
    async with serving(node, tmp_path, admin(files)) as address:
        tls = ssl.create_default_context(cafile=str(files / "ca.pem"))
        tls.load_cert_chain(files / "me.pem", files / "me.key")
        stream = trio.SSLStream(await trio.open_tcp_stream(*address), tls, server_hostname="127.0.0.1")
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: gw1.shop.example\r\nConnection: close\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("shown", ["nothing", "a stranger's"])
async def test_who_shows_no_certificate_of_the_authority_is_turned_away(node, tmp_path, files, shown):
    options = ("--ca-file", files / "ca.pem") if shown == "nothing" else mine(files, "stranger")
    with structlog.testing.capture_logs() as logs:
        async with serving(node, tmp_path, admin(files)) as address:
            result = await status(address, *options)
    assert result.exit_code == 1
    assert f"https://{address}" in result.output
    assert node.calls["status"] == 0
    [failed] = [line for line in logs if line["event"] == "admin.tls_failed"]
    assert failed["log_level"] == "warning"
    assert failed["peer"].startswith("127.0.0.1:")


async def test_with_a_token_as_well_both_are_asked_for(node, tmp_path, files):
    async with serving(node, tmp_path, admin(files, token=True)) as address:
        assert "Authorization: Bearer" in (await status(address, *mine(files))).output
        result = await status(address, *mine(files), "--token-file", files / "token")
        assert result.exit_code == 0, result.output
        result = await status(address, "--ca-file", files / "ca.pem", "--token-file", files / "token")
        assert result.exit_code == 1


async def test_tls_with_a_token_alone(node, tmp_path, files):
    async with serving(node, tmp_path, admin(files, clients=False, token=True)) as address:
        trusting = ("--ca-file", files / "ca.pem")
        assert (await status(address, *trusting, "--token-file", files / "token")).exit_code == 0
        assert (await status(address, *trusting)).exit_code == 1


async def test_a_node_that_we_do_not_trust_is_not_asked(node, tmp_path, files):
    async with serving(node, tmp_path, admin(files, clients=False)) as address:
        result = await status(address)
    assert result.exit_code == 1
    assert "its certificate is refused" in result.output


async def test_http_and_https_mixed_up(node, tmp_path, files):
    async with serving(node, tmp_path, admin(files)) as address:
        result = await status(address, scheme="http")
        assert result.exit_code == 1
        assert "without an answer; does it speak https?" in result.output
    async with serving(node, tmp_path, '[admin]\nlisten = "127.0.0.1:0"') as address:
        assert (await status(address, scheme="http")).exit_code == 0
        result = await status(address, *mine(files))
    assert "no agreement on TLS" in result.output


async def test_a_renewed_certificate_counts_from_the_next_connection(node, tmp_path, files):
    async with serving(node, tmp_path, admin(files)) as address:
        assert (await status(address, *mine(files))).exit_code == 0
        renewed = trustme.CA()
        issued = renewed.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(files / "node.pem")
        issued.private_key_pem.write_to_path(files / "node.key")
        os.utime(files / "node.pem", (1, 1))  # as if time had gone by
        with structlog.testing.capture_logs() as logs:
            assert "its certificate is refused" in (await status(address, *mine(files))).output
        assert "admin.certificate_renewed" in [line["event"] for line in logs]
        renewed.cert_pem.write_to_path(files / "renewed.pem")
        assert (await status(address, *mine(files), "--ca-file", files / "renewed.pem")).exit_code == 0


async def test_certificates_that_cannot_be_used_end_the_start(node, tmp_path, files):
    read = config(tmp_path, admin(files))
    (files / "node.pem").write_text("no certificate any more")
    with pytest.raises(ValueError, match=r"admin\.cert_file .*node\.pem"):
        await serve(node, read, structlog.get_logger())


# What can be wrong with what was given


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--url", "gw2:7380"], "give scheme, host and port"),
        (["--url", "https://gw2"], "give scheme, host and port"),
        (["--url", "https://gw2:port"], "is no URL"),
        (["--url", "http://gw2:7380", "--ca-file", "ca.pem"], "certificates need https"),
        (["--url", "https://gw2:7380", "--ca-file", "/absent/ca.pem"], "ca_file /absent/ca.pem cannot be read"),
        (["--url", "https://gw2:7380", "--cert-file", "a"], "--cert-file and --key-file go together"),
        (["--url", "https://gw2:7380", "--cert-file", "/absent/a", "--key-file", "b"], "cert_file /absent/a cannot be"),
        (["--url", "https://gw2:7380", "--token-file", "/absent/token"], "cannot read /absent/token"),
        (["--url", "https://gw2:7380", "--data-dir", "/tmp"], "only one of --data-dir and --url"),
        (["--data-dir", "/tmp", "--token-file", "t"], "go with --url"),
        ([], "--data-dir DIR or --url URL"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(options, said):
    result = CliRunner().invoke(main, ["status", *options])
    assert result.exit_code != 0
    assert said in " ".join(result.output.split())


def test_a_token_that_no_header_can_carry():
    with pytest.raises(ValueError, match="a header cannot carry it"):
        url("http://127.0.0.1:7380", token=Secret(b"open\nsesame"))


def test_nobody_listens_there():
    with pytest.raises(AdminError, match="nobody listens there"):
        Client(url("http://127.0.0.1:1")).get("/status", NodeStatus)
