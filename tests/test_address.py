"""One place for the address and the key of the service: options, the environment, `.env`."""

from pathlib import Path

import pytest

from conftest import EXAMPLES, KEY, Service, pagevec

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize("command", ["search words", "embed notes.txt", "check", "bench"])
def test_in_a_file(command: str, service: Service, tmp_path: Path) -> None:
    """Every command takes the address from .env, below the environment and options."""
    (tmp_path / "notes.txt").write_bytes((EXAMPLES / "notes.txt").read_bytes())
    stored = pagevec("ingest", "notes.txt", "--url", service.url, cwd=tmp_path, SERVICE_API_KEY=KEY)
    assert stored.returncode == 0, stored.stderr
    assert "made a new store: ./pagevec-store" in stored.stderr
    (tmp_path / ".env").write_text(f"PAGEVEC_URL={NOBODY}\nSERVICE_API_KEY={KEY},second\n")
    words = command.split()
    asked = pagevec(*words, cwd=tmp_path)
    assert (asked.returncode, NOBODY in asked.stderr) == (3, True), asked.stderr
    more = ["--seconds", "0.1"] if command == "bench" else []
    done = pagevec(*words, *more, cwd=tmp_path, PAGEVEC_URL=service.url)
    assert done.returncode == 0, done.stderr + done.stdout


def test_a_file_of_keys(service: Service, tmp_path: Path) -> None:
    """The file that the service reads its keys from serves the commands, too."""
    (tmp_path / "keys").write_text(f"{KEY}\nsecond\n")
    done = pagevec(
        "embed",
        EXAMPLES / "notes.txt",
        cwd=tmp_path,
        PAGEVEC_URL=service.url,
        SERVICE_API_KEY_FILE="keys",
    )
    assert done.returncode == 0, done.stderr


def test_a_file_of_keys_that_cannot_be_read(tmp_path: Path) -> None:
    """A sentence names the file, and shows nothing of what is in it."""
    (tmp_path / "keys").write_bytes(b"s3cr3t\xff\xfe")
    for file, said in (("keys", "keys: it is no text in UTF-8"), ("none", "none: No such file")):
        done = pagevec("check", NOBODY, cwd=tmp_path, SERVICE_API_KEY_FILE=file)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert "s3cr3t" not in done.stderr and "0xff" not in done.stderr


@pytest.mark.parametrize(
    ("key", "said"), [("", "the service wants a key"), ("wrong", "the service refuses the key")]
)
def test_a_key_that_is_missing_or_wrong(
    key: str, said: str, service: Service, tmp_path: Path
) -> None:
    """The sentence is the command line's: which option, which variable."""
    done = pagevec(
        "embed", EXAMPLES / "notes.txt", "--url", service.url, cwd=tmp_path, SERVICE_API_KEY=key
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"pagevec: {said}: give one of its keys with --key, or in SERVICE_API_KEY (a variable, or "
        "a line of .env)\n"
    )


def test_a_mistyped_command() -> None:
    """The command that was meant is suggested."""
    done = pagevec("serch", "x")
    assert done.returncode == 2
    assert "Did you mean 'search'?" in done.stderr


@pytest.mark.parametrize(("option", "said"), [("-q", ""), ("-v", "INFO")])
def test_quiet_and_verbose(option: str, said: str, service: Service, tmp_path: Path) -> None:
    """`-q` leaves the results alone, `-v` logs what is done; results are the same."""
    address = ("--url", service.url, "--key", KEY)
    done = pagevec("ingest", EXAMPLES / "notes.txt", option, *address, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("1 page stored")
    assert said in done.stderr if said else done.stderr == ""
