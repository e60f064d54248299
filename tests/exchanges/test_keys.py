"""Keys: signatures are the venues', files are private, and no secret ever shows."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import stat
import traceback

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from passivx.errors import ConfigError
from passivx.exchanges.keys import ApiKey, KeyKind, load_key

SECRET = "CANARYsecret0123456789"
KEY = "abcdefgh12345678"

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX modes")


def pem_of(private, password: bytes | None = None) -> str:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    ).decode()


def write(tmp_path, content, mode=0o600):
    path = tmp_path / "user.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def vectors(shared):
    return json.loads((shared / "vectors" / "binance_signing.json").read_text())


@pytest.mark.real_data
def test_hmac_signs_as_published(vectors):
    assert len(vectors["rest"]) > 10
    for row in vectors["rest"]:
        sign = ApiKey(row["api_key"], row["secret"]).signer()
        assert sign(row["string_to_sign"].encode()) == row["signature"].encode()


@pytest.mark.real_data
def test_ed25519_signs_as_published(vectors):
    (row,) = vectors["ed25519"]
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(row["seed_hex"]))
    sign = ApiKey("k", pem_of(private), KeyKind.ED25519).signer()
    assert sign(row["string_to_sign"].encode()) == row["signature_base64"].encode()


def test_a_key_shows_four_letters_and_no_secret():
    key = ApiKey(KEY, SECRET)
    assert repr(key) == str(key) == f"{key}" == "ApiKey(key=abcd…)"
    assert (key.key, key.kind) == (KEY, KeyKind.HMAC)
    assert not hasattr(key, "__dict__")
    for name in dir(key):
        assert SECRET not in repr(getattr(key, name))


def test_a_key_cannot_be_changed_copied_or_pickled():
    key = ApiKey(KEY, SECRET)
    with pytest.raises(AttributeError):
        key.key = "other"
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not copied"):
            attempt(key)


def test_a_file_is_read(tmp_path):
    key = load_key(write(tmp_path, [KEY, SECRET]))
    assert key.key == KEY
    assert key.kind is KeyKind.HMAC
    assert key.signer()(b"x") == ApiKey(KEY, SECRET).signer()(b"x")


def test_a_pem_text_makes_an_ed25519_key(tmp_path):
    private = ed25519.Ed25519PrivateKey.generate()
    key = load_key(write(tmp_path, [KEY, "\n" + pem_of(private)]))
    assert key.kind is KeyKind.ED25519
    assert len(key.signer()(b"x")) == 88


def refused(path) -> str:
    """Load what must be refused; return the message, which holds nothing of the content."""
    with pytest.raises(ConfigError) as e:
        load_key(path)
    shown = "".join(traceback.TracebackException.from_exception(
        e.value, capture_locals=False).format())  # fmt: skip
    assert "CANARY" not in shown
    assert "CANARY" not in repr(e.value.__context__)
    assert e.value.exit_code == 2
    assert str(path) in str(e.value)
    return str(e.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "CANARY",
        "{",
        "null",
        '["CANARY"]',
        '["a", "b", "CANARY"]',
        '["a", 5]',
        '[["a"], "CANARY"]',
        '{"key": "a", "secret": "CANARY"}',
        '["a", "CANARY',
        '["a", "CANARY"] x',
        "[" * 5000,
        '["a", "' + "CANARY" * 10_000 + '"]',
        '["a", "\\ud800CANARY"]',
    ],
)
def test_anything_but_two_texts_is_refused(tmp_path, content):
    assert 'must be a JSON list of two texts, ["KEY", "SECRET"]' in refused(
        write(tmp_path, content)
    )


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = write(tmp_path, "")
    path.write_bytes(b'["a", "\xff\xfeCANARY"]')
    assert "two texts" in refused(path)


@pytest.mark.parametrize("word", ["", "CANARY x", "CANARY\n", "CANARYé", "CANARY\x00", "\tCANARY"])
def test_blanks_and_foreign_letters_are_refused(tmp_path, word):
    assert "secret: must be printable ASCII" in refused(write(tmp_path, ["a", word]))
    assert "key: must be printable ASCII" in refused(write(tmp_path, [word, "CANARY"]))


def test_other_private_keys_are_refused_with_the_remedy(tmp_path):
    rsa_pem = pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    assert "must be an Ed25519 key" in refused(write(tmp_path, [KEY, rsa_pem]))
    locked = pem_of(ed25519.Ed25519PrivateKey.generate(), b"CANARY")
    assert "is encrypted; write it without a password" in refused(write(tmp_path, [KEY, locked]))
    broken = "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----"
    assert "is no private key" in refused(write(tmp_path, [KEY, broken]))


@posix
def test_only_the_owner_may_read_and_write(tmp_path):
    path = write(tmp_path, [KEY, SECRET])
    for mode in range(0o1000):
        path.chmod(mode)
        if mode in (0o600, 0o400):
            assert load_key(path).key == KEY
        elif os.geteuid() != 0 and not mode & 0o400:
            assert "cannot be read" in refused(path)
        elif mode & 0o177:
            assert f"has mode {mode:04o}, must be 0600; chmod 600 {path}" in refused(path)


@posix
def test_special_modes_are_refused(tmp_path):
    path = write(tmp_path, [KEY, SECRET], 0o600 | stat.S_ISUID)
    if path.stat().st_mode & stat.S_ISUID:
        assert "has mode 4600" in refused(path)


@posix
def test_another_users_file_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, [KEY, SECRET])
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "belongs to another user" in refused(path)


@posix
def test_links_folders_and_pipes_are_refused(tmp_path):
    path = write(tmp_path, [KEY, SECRET])
    link = tmp_path / "link.json"
    link.symlink_to(path)
    assert "is a link" in refused(link)
    dangling = tmp_path / "dangling.json"
    dangling.symlink_to(tmp_path / "nowhere")
    assert "is a link" in refused(dangling)
    assert "is not a regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.json", 0o600)
    assert "is not a regular file" in refused(tmp_path / "pipe.json")


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "cannot be read" in refused(tmp_path / "nobody.json")


def test_nothing_is_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    load_key(write(tmp_path, [KEY, SECRET])).signer()(b"x")
    assert not caplog.records
