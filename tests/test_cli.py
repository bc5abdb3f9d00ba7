"""The command line, as a person uses it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.shell_completion import ShellComplete

from conftest import EXAMPLES, KEY, Service, pagevec
from pagevec import cli
from pagevec.cli import main
from pagevec.engine.models.registry import FAMILIES
from pagevec.environment import variable_names
from pagevec.settings import Settings


def arrays_in(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def test_models_lists_every_family() -> None:
    """`pagevec models` names what can be served."""
    printed = pagevec("models").stdout
    assert all(family.name in printed for family in FAMILIES)


def test_serve_help_shows_the_settings() -> None:
    """`pagevec serve --help` names each option and variable, what it takes and its default."""
    printed = " ".join(pagevec("serve", "--help").stdout.split())
    for name in Settings.model_fields:
        assert variable_names(name, Settings)[0] in printed
    for words in (
        "env var: PAGEVEC_PORT; default: 8765; 0<=x<=65535",
        "--dtype [auto|float32|bfloat16|float16]",
        "--offline / --no-offline",
        "Expects auto, cpu, mps, cuda or cuda:N.",
        "--demo",
    ):
        assert words in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "abc"], "Invalid value for '--port'"),
        (["--port", "70000"], "Invalid value for '--port'"),
        (["--dtype", "int4"], "'float32', 'bfloat16', 'float16'"),
        (["--device", "gpu"], "pagevec: --device gpu: expected auto, cpu, mps, cuda or cuda:N"),
        (["--backend", "mine"], "pagevec: --backend mine: expected package.module:name"),
        (["--request-seconds", "0"], "Invalid value for '--request-seconds'"),
    ],
)
def test_serve_names_the_option_at_fault(options: list[str], said: str) -> None:
    """A wrong option ends `pagevec serve` with code 2 and a message that names the option."""
    done = pagevec("serve", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "flag"),
    [
        (["--offline", "true"], "--offline"),
        (["--offline=true"], "--offline"),
        (["--offline", "false"], "--no-offline"),
    ],
)
def test_a_flag_with_a_value_is_understood(typed: list[str], flag: str) -> None:
    """`--offline true`, as it was before it became a flag, still works and warns."""
    done = pagevec("serve", *typed, "--device", "gpu")
    assert f"deprecated: write `{flag}`" in done.stderr
    assert done.stderr.endswith("pagevec: --device gpu: expected auto, cpu, mps, cuda or cuda:N\n")


def test_choices_complete_in_a_shell() -> None:
    """The shell's completion offers the options, and the values of a choice."""
    shell = ShellComplete(main, {}, "pagevec", "_PAGEVEC_COMPLETE")
    values = [one.value for one in shell.get_completions(["serve", "--dtype"], "")]
    assert values == ["auto", "float32", "bfloat16", "float16"]
    names = [one.value for one in shell.get_completions(["serve"], "--off")]
    assert names == ["--offline"]


def test_help_imports_no_command() -> None:
    """`pagevec --help` lists all commands without importing them, by their own words."""
    program = "import sys; from pagevec.cli import main; main(['--help'], standalone_mode=False)"
    seen = f"{program}; print(*[m for m in sys.modules if m.startswith('pagevec.commands.')])"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "pagevec.commands.interrupts"
    context = click.Context(main)
    for name, help_ in cli._COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert command.help is not None
        assert " ".join(command.help.split("\n\n")[0].split()) == help_
        assert f"{name} " in done.stdout


def test_embed_in_process_and_over_http_agree(service: Service, tmp_path: Path) -> None:
    """The same files give the same vectors in this process and through a service, by name."""
    files = [EXAMPLES / "receipt.png", EXAMPLES / "notes.txt"]
    names = ["examples/receipt.png#1", "examples/notes.txt#1"]
    here, there = tmp_path / "here.npz", tmp_path / "there.npz"
    done = pagevec("embed", *files, "--out", here, "--model", "bundled")
    assert done.returncode == 0, done.stderr
    done = pagevec("embed", *files, "--out", there, "--url", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    one, other = arrays_in(here), arrays_in(there)
    assert list(one["names"]) == list(other["names"]) == names
    for name in ("emb_0", "emb_1"):
        assert one[name].dtype == np.float32
        assert np.abs(one[name] - other[name]).max() <= 1e-4


def test_output_that_cannot_be_written(service: Service, tmp_path: Path) -> None:
    """A place that cannot be written is named in a sentence, without a traceback."""
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "out.npz"
    done = pagevec(
        "embed", EXAMPLES / "notes.txt", "--out", out, "--url", service.url, SERVICE_API_KEY=KEY
    )
    assert done.returncode == 2
    assert f"Invalid value for --out: there is no folder {tmp_path / 'file'}" in done.stderr


def test_embed_takes_a_folder(service: Service, tmp_path: Path) -> None:
    """Every page of every document in a folder is embedded, in order."""
    out = tmp_path / "all.npz"
    done = pagevec("embed", EXAMPLES, "--out", out, "--url", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert "8 pages" in done.stdout
    names = arrays_in(out)["names"].tolist()
    assert names[:2] == ["examples/annual-report.pdf#1", "examples/annual-report.pdf#2"]


@pytest.mark.parametrize(
    ("file", "content", "code", "said"),
    [
        ("nothing.pdf", None, 2, "no such file"),
        ("table.zip", b"PK", 2, "unsupported file type '.zip'"),
        ("blank.txt", b" \n\t\n", 0, "there is nothing in it"),
        ("broken.pdf", b"%PDF-1.4 and no more", 0, "not a PDF that can be opened"),
        ("broken.png", b"\x89PNG\r\n\x1a\n and no more", 0, "its file ends too early"),
    ],
)
def test_embed_bad_files(
    file: str, content: bytes | None, code: int, said: str, service: Service, tmp_path: Path
) -> None:
    """A file that cannot be read is named in a sentence; nothing is written, no traceback shown."""
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    out = tmp_path / "out.npz"
    done = pagevec("embed", path, "--out", out, "--url", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == code
    assert list(tmp_path.glob("out*")) == []
    assert said in done.stderr and str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_check_passes(service: Service) -> None:
    """Every check passes against a good service: PASS lines, exit code 0."""
    done = pagevec("check", service.url, SERVICE_API_KEY=KEY)
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert done.stdout.count("PASS") >= 10


def test_check_fails(service: Service) -> None:
    """With a wrong key the checks that need one fail, and the exit code says so."""
    done = pagevec("check", service.url, "--key", "wrong")
    assert done.returncode == 1
    assert "FAIL  key is accepted" in done.stdout
    assert "PASS  wrong key is refused" in done.stdout


def test_check_nobody_there() -> None:
    """Nothing listens: one sentence says so, instead of a check after the other."""
    done = pagevec("check", "http://127.0.0.1:9", "--key", "any")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("pagevec: no service answers at http://127.0.0.1:9: is it runn")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_model_ends_the_start() -> None:
    """`serve` with a checkpoint that is not there says so, and exits 1."""
    done = pagevec("serve", "--model", "/nowhere/model", "--offline", "--port", 0)
    assert done.returncode == 1
    assert "/nowhere/model" in done.stderr
