"""The environment with the frameworks, for the tests that need them: made once and kept."""

from pathlib import Path

from real_clients.environments import python_with

PACKAGES = (
    "haystack-ai==3.4.0",
    "ipykernel==7.4.0",
    "langchain-core==1.7.2",
    "llama-index-core==0.14.25",
    "nbclient==0.11.0",
)


def framework_python() -> Path:
    """Return an interpreter that has the frameworks; where there is none, the test is skipped."""
    return python_with(*PACKAGES)
