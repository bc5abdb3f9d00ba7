"""What importing costs, and who imports whom."""

import subprocess
import sys


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_client_is_light() -> None:
    """`import pagevec.client` loads no torch, no FastAPI, no Pillow."""
    loaded = modules_after("import pagevec.client")
    assert not loaded & {"torch", "fastapi", "starlette", "pydantic", "PIL", "transformers"}


def test_a_remote_index_is_light() -> None:
    """An index over the store of a service is made without them, too."""
    loaded = modules_after("import pagevec; pagevec.Index('http://127.0.0.1:9', 'key').close()")
    assert not loaded & {"torch", "fastapi", "starlette", "pydantic", "PIL", "transformers"}


def test_frameworks_over_a_service_are_light() -> None:
    """What retrievers of frameworks have in common loads none of them either."""
    loaded = modules_after("import pagevec.integrations.pages")
    assert not loaded & {"torch", "fastapi", "starlette", "pydantic", "PIL", "transformers"}


def test_the_command_line_is_light() -> None:
    """`pagevec --help` and the list of commands load no torch."""
    assert "torch" not in modules_after("import pagevec.cli; pagevec.cli.main.list_commands(None)")


def test_torchvision_can_be_imported() -> None:
    """Torchvision's wheel beside a CPU-only torch is importable through the one fix for it."""
    loaded = modules_after(
        "from pagevec.engine.models.compat import import_torchvision\n"
        "import_torchvision(); import_torchvision()\n"
        "from torchvision.transforms.v2 import functional"
    )
    assert "torchvision" in loaded
