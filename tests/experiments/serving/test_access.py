"""Who may connect."""

from __future__ import annotations

import pytest

from bac_workbench.serving.access import VARIABLE, is_authorised, is_loopback, token_for
from bac_workbench.serving.limits import Rate
from diffusion_policy.common.config import ConfigError

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_loopback_is_what_others_cannot_reach():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.2", "", "localhost.example", "robot"))


def test_any_other_address_needs_a_token(monkeypatch):
    assert token_for("127.0.0.1", None) is None
    for host in ("0.0.0.0", "robot"):
        with pytest.raises(ConfigError, match=f"host={host} can be reached.*{VARIABLE}.*token_file=.*127.0.0.1"):
            token_for(host, None)
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert token_for("0.0.0.0", None) == TOKEN == token_for("127.0.0.1", None), "a token that is set counts everywhere"


def test_a_token_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "another" * 4)
    path = tmp_path / "token"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        token_for("127.0.0.1", str(path))
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"other users may read .*chmod 600 {path}"):
        token_for("127.0.0.1", str(path))
    path.chmod(0o600)
    assert token_for("0.0.0.0", str(path)) == TOKEN


@pytest.mark.parametrize("token", ["", "short", "a" * 15, "a" * 2000, "with a space in it", "nul\0" * 8, "ä" * 20])
def test_tokens_that_can_be_guessed_or_not_be_sent_are_refused(token, monkeypatch, tmp_path):
    path = tmp_path / "token"
    path.write_text(token)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="has to be 16 to 1,024 ASCII .*secrets"):
        token_for("127.0.0.1", str(path))


def test_the_header_of_openpi_and_that_of_prometheus():
    for header in (f"Api-Key {TOKEN}", f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
        assert is_authorised(header, TOKEN)
    for header in (
        None,
        "",
        TOKEN,
        f"Basic {TOKEN}",
        f"Api-Key {TOKEN}x",
        f"Api-Key {TOKEN[:-1]}",
        "Api-Key",
        "Api-Key ä",
    ):
        assert not is_authorised(header, TOKEN)
        assert is_authorised(header, None)


def test_a_rate_holds_on_average_and_allows_a_burst_of_a_second():
    now = [0.0]
    rate = Rate(4, lambda: now[0])
    assert [rate.allows() for _ in range(6)] == [True] * 4 + [False] * 2
    now[0] = 0.25
    assert [rate.allows() for _ in range(2)] == [True, False]
    allowed = 0
    for tick in range(1000):  # 10 s of a client that asks every 10 ms
        now[0] = 0.25 + tick / 100
        allowed += rate.allows()
    assert 38 <= allowed <= 41
    slow = Rate(0.5, lambda: now[0])
    assert [slow.allows(), slow.allows()] == [True, False]
