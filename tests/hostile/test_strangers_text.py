"""What strangers write reaches terminals, logs and other programs only as text.

The names, paths and answers are drawn at random from what terminals obey, shells and option
parsers take for their own, and line ends that forge records.
"""

import json
import random
import re
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from answering import Answering, answering
from conftest import KEY, Service, pagevec
from pagevec.client import Client
from pagevec.errors import ConfigurationError, InvalidRequest, PagevecError, StoreError
from pagevec.ingest.boundary import open_document
from pagevec.secrets import mask_pieces, mask_secrets, mask_url
from pagevec.server.security import RateLimits
from pagevec.settings import Settings
from pagevec.stores import open_store
from pagevec.terminal import show_json, show_on_one_line
from processes import environment, serving

pytestmark = pytest.mark.long

# Everything that is no visible character: the sets of Unicode, not those of the code under test.
OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
FORGED = "2026-01-01T00:00:00Z [info] forged by a stranger"
BITS = [
    "\x1b[31m", "\x1b]0;title\x07", "\x1b[2J", "\x9b1A", "\x08\x08", "\r", "\x7f", "\u202e",
    "\u2066", f"\n{FORGED}", "\u2028", "a", "page", " ", "'", '"', "%s", "{0}", "=", "\\",
    "é", "漢",
]  # fmt: skip


def draw(seed: int, without: str = "") -> str:
    """Return a text of bits drawn at random, at least one of which a terminal obeys."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    bits = [chance.choice(BITS) for _ in range(6)] + [chance.choice(BITS[:11])]
    chance.shuffle(bits)
    return "".join(bits).translate({ord(one): None for one in without})


def check_harmless(shown: str) -> None:
    """Check that a terminal shows all of it, and that no line of it is a stranger's."""
    assert not OBEYED.search(shown), ascii(shown)
    assert not any(line.startswith(FORGED) for line in shown.split("\n")), ascii(shown)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_log_of_a_service(log_format: str, tmp_path: Path) -> None:
    """Whatever a request's path holds, its line in the log is one line, of visible characters."""
    with serving(tmp_path, environment(PAGEVEC_LOG_FORMAT=log_format)) as process:
        with process.client() as client:
            for seed in range(40):
                assert client.get(f"/{quote(draw(seed), safe='')}").status_code == 404
        process.stop()
        log = process.log.read_text()
    check_harmless(log)
    requests = [line for line in log.splitlines() if "/" in line and "404" in line]
    assert len(requests) == 40
    if log_format == "json":
        paths = {json.loads(line)["path"] for line in requests}
        assert paths == {f"/{draw(seed)}" for seed in range(40)}


def test_the_commands(service: Service, tmp_path: Path) -> None:
    """Names of files are shown as text by each command, and exactly by those that print JSON."""
    folder = tmp_path / "in\x1b[2Jbox"
    folder.mkdir()
    names = {f"-{draw(seed, without='/')}.txt" for seed in range(12)}
    for name in names:
        (folder / name).write_text(f"words of {name!r}")
    (folder / f"broken{draw(99)}.pdf").write_bytes(b"%PDF-1.4 and no more")
    store = tmp_path / f"store{draw(98)}"
    on = ("--store", store)
    ask = ("--url", service.url, "--key", KEY)
    shown = [
        pagevec("ingest", folder, *on, *ask),
        pagevec("documents", *on),
        pagevec("search", f"words {draw(97)}".replace("\x00", ""), *on, *ask),
        pagevec("embed", folder, "--out", tmp_path / f"out{draw(96)}.npz", *ask),
        pagevec("embed", tmp_path / draw(95), *ask),
        pagevec("ingest", folder / f"nothing{draw(94)}", *on, *ask),
        pagevec("serve", f"--{draw(93)}"),
        pagevec("remove", draw(92), *on),
        pagevec("check", "http://127.0.0.1:9/\x1b[31m", "--key", "k\x1b[31m"),
    ]
    assert [done.returncode for done in shown] == [0, 0, 0, 0, 2, 2, 2, 2, 2], shown
    for done in shown:
        check_harmless(done.stdout)
        check_harmless(done.stderr)
        assert "Traceback" not in done.stderr
    check_harmless((store / "logs" / "ingestion.log").read_text())
    listed = pagevec("documents", *on, "--json").stdout
    assert not OBEYED.search(listed)
    known = {one["name"].partition("/")[2] for one in json.loads(listed)}
    assert names <= known


@contextmanager
def hostile_service(said: str) -> Iterator[str]:
    """Serve answers that all say `said`, wherever a service says something."""

    class Handler(Answering):
        def do_GET(self) -> None:
            body = json.dumps({"error": said, "code": said, "model": said, "index": 0}).encode()
            self.answer(400, body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

    with answering(Handler) as url:
        yield url


def test_answers_of_a_hostile_service(tmp_path: Path) -> None:
    """What a service says is shown as text: errors, names of models, outcomes of checks."""
    (tmp_path / "a.txt").write_text("words")
    with hostile_service(draw(7) + draw(8)) as url:
        for command in (
            ("embed", tmp_path / "a.txt", "--url", url, "--out", tmp_path / "o.npz"),
            ("ingest", tmp_path / "a.txt", "--url", url, "--store", tmp_path / "store"),
            ("check", url, "--key", "k"),
            ("bench", url, "--key", "k", "--seconds", 1),
        ):
            done = pagevec(*command)
            assert done.returncode != 0
            assert "page" in done.stdout + done.stderr
            check_harmless(done.stdout)
            check_harmless(done.stderr)


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed here")
@pytest.mark.parametrize(
    "name",
    [
        "--accept=socket,host=127.0.0.1,port=2002;urp;.html",
        "-env:UserInstallation=file:.html",
        "--convert-to=exe --outdir=..html",
        "macro:.html",
    ],
)
def test_a_name_that_is_an_option(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is called like an option of LibreOffice is a document, also without a folder."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("<p>ALBATROSS</p>")
    with open_document(Path(name)) as pages:
        assert "ALBATROSS" in (pages.make(1).text or "")
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_warnings_without_a_log() -> None:
    """Where no log is configured, a command's warnings are text, too."""
    program = (
        "import logging, sys\n"
        "from pagevec import cli\n"
        "try: cli.main(['models'])\n"
        "except SystemExit: pass\n"
        "logging.getLogger('pagevec.x').warning('read %s', sys.argv[1])\n"
        "try: raise ValueError(sys.argv[1])\n"
        "except ValueError: logging.getLogger('pagevec.x').exception('failed')\n"
    )
    said = f"a\x1b[31mb\n{FORGED} redis://:geheim@host"
    done = subprocess.run(
        [sys.executable, "-c", program, said], capture_output=True, text=True, timeout=60
    )
    check_harmless(done.stderr)
    assert done.stderr.count("forged") == 2 and "geheim" not in done.stderr


@pytest.mark.parametrize("seed", range(30))
def test_escaping_loses_nothing(seed: int) -> None:
    """JSON reads back exactly; a line has all visible characters and no other."""
    said = draw(seed) + "\udce9\U000e0041\ufeff"
    for shown in (show_json({"name": [said]}), show_on_one_line(said)):
        check_harmless(shown)
        shown.encode()
    assert json.loads(show_json({"name": [said]})) == {"name": [said]}
    assert "\n" not in show_on_one_line(said)
    assert show_on_one_line("Straße 漢字 \N{GRINNING FACE}") == "Straße 漢字 \N{GRINNING FACE}"


PASSWORDS = ["geheim", "ge/heim", "ge@heim", "ge:heim", "ge#heim", "ge?heim", "%20geheim", "heim"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("user", ["", "user"])
def test_passwords_in_urls(user: str, password: str) -> None:
    """A password is in no error about a URL, whether or not its characters are escaped."""
    errors: list[PagevecError] = []
    for rest in ("host", "host:1", "host:port", "[::1", "127.0.0.1:1/0"):
        address = f"://{user}:{password}@{rest}"
        for scheme in ("redis", "rediss", "rredis"):
            with pytest.raises(ConfigurationError) as refused:
                settings = Settings(_env_file=None, rate_limit_storage=f"{scheme}{address}")
                RateLimits(settings)
                raise ConfigurationError(settings.cite("rate_limit_storage"))
            errors.append(refused.value)
    for rest in ("127.0.0.1:1/db", "127.0.0.1:99999999/db", "[::1/db", "127.0.0.1/db?x=y"):
        for scheme in ("postgresql", "postgres", "postgresql+asyncpg"):
            # Of these schemes only the first two are known.
            with pytest.raises((StoreError, InvalidRequest)) as failed:
                open_store(f"{scheme}://{user}:{password}@{rest}", create=False)
            errors.append(failed.value)
    for error in errors:
        assert "heim" not in f"{error} {error.message} {error!r}"


def test_passwords_in_the_log(tmp_path: Path) -> None:
    """A Redis that cannot be reached is named in the log, its password is not."""
    settings = environment(
        PAGEVEC_RATE_LIMIT="5/minute", PAGEVEC_RATE_LIMIT_STORAGE="redis://u:ge@heim@127.0.0.1:1/0"
    )
    with serving(tmp_path, settings) as process:
        with Client(process.url, KEY) as client:
            client.embed_query("fares")
        process.stop()
        log = process.log.read_text()
    assert "requests are not counted" in log
    assert "heim" not in log


@pytest.mark.parametrize("seed", range(50))
def test_masks(seed: int) -> None:
    """A password drawn at random is masked in a sentence around it, which stays as it was."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    letters = string.ascii_letters + string.digits + "!$&()*+,;=-._~%"
    secret = "S3" + "".join(chance.choices(letters + "@:/#?", k=12)) + "Z9"
    plain = "S3" + "".join(chance.choices(letters, k=12)) + "Z9"
    url = f"https://user:{secret}@host.example/path"
    assert mask_url(f"before {url} after") == "before https://user:***@host.example/path after"
    assert mask_url(f"<https://{plain}@host/x>") == "<https://***@host/x>"
    assert mask_secrets(f"host=h password={plain.replace('&', '')} x") == "host=h password=*** x"
    assert mask_secrets(rf"password = 'a \' {secret}' x") == "password = *** x"
    cited = mask_pieces(f"bad port {secret.rpartition('@')[2]!r}, host {secret}@host", url)
    assert "Z9" not in cited and "S3" not in cited


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8765/a@b",
        "http://[::1]:8765/@x",
        "mail to someone@example.org about http://host/x?to=a@b",
        "send the header `Authorization: Bearer <key>`",
        "12:30 @ https://host",
        "the password of the document is wrong",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    """Addresses and sentences without a secret stay as they are."""
    assert mask_secrets(text) == text


@pytest.mark.alone
def test_masking_takes_no_long_time() -> None:
    """A megabyte that is made to be slow is masked within a second."""
    slow = "a.a" * 300_000, "a://b:" * 20_000, "password=" * 100_000, "a://" + "b@" * 300_000
    for text in slow:
        started = time.perf_counter()
        mask_secrets(text)
        assert time.perf_counter() - started < 2
