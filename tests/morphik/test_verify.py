"""`pagevec morphik verify` against a real service."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from installations import image_only, json_release, npz_release

from conftest import Service, make_settings, running
from engine.hash_backend import HashBackend
from pagevec.cli import main
from pagevec.engine.embedder import LocalEmbedder


def run(*arguments: str | Path, **environment: str) -> Result:
    clean = {"SERVICE_API_KEY": None, "MORPHIK_EMBEDDING_API_KEY": None, **environment}
    return CliRunner().invoke(main, ["morphik", *map(str, arguments)], env=clean)


def configured(folder: Path, service: Service, *more: str) -> Path:
    run("configure", folder, "--url", service.url, *more)
    return folder


@pytest.mark.parametrize("release", [json_release, npz_release])
def test_passes(release: Callable[[Path], Path], service: Service, tmp_path: Path) -> None:
    """After `configure` all checks pass, with the format that the release reads."""
    configured(release(tmp_path), service, "--key", service.key)
    done = run("verify", tmp_path)
    assert done.exit_code == 0, done.output
    assert "PASS  answer is what morphik reads" in done.output
    assert "all passed" in done.output


def test_key_of_the_environment(service: Service, tmp_path: Path) -> None:
    """Without .env, as on a platform, the key comes from the environment."""
    configured(image_only(tmp_path), service, "--format", "npz")
    assert run("verify", tmp_path, MORPHIK_EMBEDDING_API_KEY=service.key).exit_code == 0


def test_a_wrong_key_fails(service: Service, tmp_path: Path) -> None:
    """A wrong key fails with 401 and is not printed."""
    configured(npz_release(tmp_path), service, "--key", "wrong-one")
    done = run("verify", tmp_path)
    assert done.exit_code == 1
    assert "FAIL  answer is what morphik reads" in done.output
    assert "401" in done.output
    assert "wrong-one" not in done.output


def test_a_key_that_cannot_be_sent(service: Service, tmp_path: Path) -> None:
    """The error about a key that no header can carry does not repeat the key."""
    configured(npz_release(tmp_path), service)
    done = run("verify", tmp_path, MORPHIK_EMBEDDING_API_KEY="broken-one\n")
    assert done.exit_code == 2
    assert "begins or ends with a space or a line end" in done.output
    assert "broken-one" not in done.output


def test_the_wrong_format_fails(service: Service, tmp_path: Path) -> None:
    """An address that answers JSON to a release that reads npz fails."""
    configured(npz_release(tmp_path), service, "--key", service.key, "--format", "json")
    done = run("verify", tmp_path)
    assert done.exit_code == 1
    assert "FAIL  answer is what morphik reads" in done.output


@pytest.mark.parametrize("release", [json_release, npz_release])
def test_a_model_of_another_dimension_fails(
    release: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Vectors that morphik-core's table has no room for are told before the first page fails."""
    embedder = LocalEmbedder(HashBackend)
    with closing(embedder), running(embedder, make_settings()) as service:
        embedder.wait_until_ready()
        configured(release(tmp_path), service, "--key", service.key)
        done = run("verify", tmp_path)
    assert done.exit_code == 1
    assert "FAIL  answer is what morphik reads" in done.output
    assert "vectors of 32 dimensions; morphik-core's table takes 128" in done.output


def test_before_the_switch(service: Service, tmp_path: Path) -> None:
    """An installation that was not configured: a missing key is an error, local mode a FAIL."""
    done = run("verify", npz_release(tmp_path))
    assert done.exit_code == 2
    assert "MORPHIK_EMBEDDING_API_KEY is neither" in done.output
    toml = tmp_path / "morphik.toml"
    toml.write_text(toml.read_text().replace("http://localhost:6000", f"{service.url}/npz"))
    done = run("verify", tmp_path, MORPHIK_EMBEDDING_API_KEY=service.key)
    assert done.exit_code == 1
    assert "FAIL  pages are embedded by a service" in done.output
    assert "1 failed" in done.output
