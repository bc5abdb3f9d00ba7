"""`pagevec serve` as a newcomer starts it: what it prints, and what its lines do when copied."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from conftest import EXAMPLES, KEY
from documents_http import Documents
from processes import Process, environment, run_to_the_end, serving

pytestmark = pytest.mark.long


def newcomer(state: Path, **variables: str) -> dict[str, str]:
    """Return an environment without a key, whose state folder is `state`."""
    made = environment(XDG_STATE_HOME=str(state), **variables)
    del made["SERVICE_API_KEY"]
    return made


def lines_to_copy(process: Process) -> list[str]:
    said = process.output.read_text()
    return said.partition("in another terminal:\n\n")[2].rstrip().splitlines()


def key_in(process: Process) -> str:
    [line] = [one for one in lines_to_copy(process) if one.startswith("export SERVICE_API_KEY=")]
    return line.partition("=")[2]


def copy_and_run(process: Process) -> "subprocess.CompletedProcess[str]":
    """Run the printed lines in a shell that knows nothing of the service."""
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        ["sh", "-euc", "\n".join(lines_to_copy(process))],
        env=clean,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def started(folder: Path, variables: dict[str, str], *options: str) -> Iterator[Process]:
    """Serve in `folder`, made for it."""
    folder.mkdir(exist_ok=True)
    with serving(folder, variables, "--max-visual-tokens", "16", *options) as process:
        yield process


def embeds(process: Process, key: str) -> bool:
    body = {"input_type": "text", "inputs": ["hello"]}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{process.url}/", json=body, headers=headers).status_code == 200


def test_the_printed_lines_show_an_answer(tmp_path: Path) -> None:
    """With the examples, as `make serve` does it: copied as they are, the lines find the page."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    with serving(tmp_path, newcomer(tmp_path / "s"), "--demo", "examples") as process:
        said = process.output.read_text()
        done = copy_and_run(process)
        assert done.returncode == 0, done.stderr
    assert "ask with words that stand on the page" in said
    assert said.split()[0] == "page"
    assert "8 pages stored" in done.stdout
    hits = done.stdout.splitlines()[-8:]
    assert hits[0].endswith("examples/annual-report.pdf, page 4  [parcels, punctuality]")
    assert len(done.stdout) < 2000


def test_the_key_is_kept(tmp_path: Path) -> None:
    """A second start has the key of the first and shows it; the log of neither does."""
    state, logs = tmp_path / "s", []
    keys = []
    for number in (1, 2):
        variables = newcomer(state, PAGEVEC_LOG_LEVEL="debug")
        with started(tmp_path / str(number), variables) as process:
            keys.append(key_in(process))
            assert embeds(process, keys[0])
            assert not embeds(process, "wrong")
            assert f"key      kept in {state}/pagevec/key" in process.output.read_text()
        logs.append(process.log.read_text())
        assert process.output.read_text().count(keys[0]) == 1
    assert keys[0] == keys[1]
    assert keys[0] not in "".join(logs)
    assert (state / "pagevec" / "key").read_text() == f"{keys[0]}\n"


def test_where_no_key_can_be_kept(tmp_path: Path) -> None:
    """The service starts with a key for this start, and says that and why."""
    with started(tmp_path / "here", newcomer(Path("/proc"))) as process:
        assert embeds(process, key_in(process))
        said = process.output.read_text()
    assert "key      for this start only: /proc/pagevec/key cannot be used: " in said


def test_a_key_of_the_users_own_is_not_shown(tmp_path: Path) -> None:
    """Neither the banner nor the log has a key that the user set; both its sources are named.

    PAGEVEC_URL, in the environment and in `.env`, is the address of another service, and no setting
    of this one.
    """
    file, elsewhere = tmp_path / "keys", "https://elsewhere.example"
    file.write_text("key-of-a-file")
    of_a_file = newcomer(tmp_path / "s", SERVICE_API_KEY_FILE=str(file))
    of_a_variable = environment(PAGEVEC_URL=elsewhere)
    cases = {"SERVICE_API_KEY": (KEY, of_a_variable), file.name: ("key-of-a-file", of_a_file)}
    for name, (key, variables) in cases.items():
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / ".env").write_text(f"PAGEVEC_URL={elsewhere}\n")
        with started(folder, variables) as process:
            assert embeds(process, key)
            assert f"export PAGEVEC_URL={process.url}" in lines_to_copy(process)
        said = process.output.read_text()
        assert "key      what you set in SERVICE_API_KEY" in said
        assert "export SERVICE_API_KEY" not in said
        assert key not in said + process.log.read_text()
    assert not (tmp_path / "s").exists()


def test_the_lines_without_documents(tmp_path: Path) -> None:
    """Where no documents were given, the first line that asks the service is a check of it."""
    with started(tmp_path / "it's here", newcomer(tmp_path / "s")) as process:
        *_, check, ingest, search = lines_to_copy(process)
        assert check.endswith(" check")
        assert "ingest FOLDER" in ingest and "words that stand on a page" in search
        process.output.write_text(process.output.read_text().replace(f"{ingest}\n{search}", ""))
        done = copy_and_run(process)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all passed" in done.stdout


def test_the_page_that_is_printed(tmp_path: Path) -> None:
    """Its token signs in once; the examples are there; the store is the demonstration's own."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    for start in range(2):
        with serving(tmp_path, newcomer(tmp_path / "s"), "--demo", "examples") as process:
            page, _, token = process.output.read_text().split()[1].partition("#token=")
            signed_in = httpx.post(f"{page}sign-in", json={"token": token})
            assert signed_in.json() == {"key": key_in(process)}
            assert httpx.post(f"{page}sign-in", json={"token": token}).status_code == 403
            key = {"Authorization": f"Bearer {key_in(process)}"}
            with Documents(httpx.Client(base_url=page, headers=key, timeout=60)) as documents:
                while documents.http.get("/status").json()["pages"] < 8:
                    time.sleep(0.2)
                names = [one["name"] for one in documents.list()["documents"]]
                assert len(names) == 3 + start  # what was uploaded is there after a restart
                documents.upload(("more.txt", b"one page more"))
        assert token not in process.log.read_text()
    assert [one.name for one in (tmp_path / "pagevec-demo").iterdir()] == ["bundled"]
    assert not (tmp_path / "pagevec-store").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--store", "nowhere"], "there is no store at nowhere"),
        (["--uploads"], "PAGEVEC_UPLOADS needs a store"),
        (["--demo", "examples", "--ray"], "--ray serves no store"),
    ],
)
def test_stores_that_cannot_be_served(tmp_path: Path, options: list[str], said: str) -> None:
    """The start ends with a sentence, before a model is loaded."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    done = run_to_the_end(tmp_path, environment(), *options)
    assert done.returncode in (2, 3)
    assert said in done.stderr and "Traceback" not in done.stderr
