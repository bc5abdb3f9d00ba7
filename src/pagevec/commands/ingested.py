"""What `pagevec ingest` prints: what became of documents, for people and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from pagevec.terminal import count, show_json

if TYPE_CHECKING:
    from pagevec.ingest.catalogue import Removal
    from pagevec.ingest.worker import Outcome
    from pagevec.search.results import Report


def report_as_lines(report: "Report", removal: "Removal") -> list[str]:
    """Return what was stored, renamed and removed, in lines for people."""
    skipped = len(report.skipped)
    lines = [
        f"{count(report.pages_stored, 'page')} stored; "
        f"{count(skipped, 'document')} {'was' if skipped == 1 else 'were'} there already"
    ]
    for one in report.outcomes:
        if one.same_as in report.renamed:
            lines.append(f"renamed: {one.same_as} is now {one.document}")
        elif one.same_as is not None:
            lines.append(f"same content: {one.document} has the pages of {one.same_as}")
    lines += [f"removed: {name}" for name in removal.removed]
    return lines


def complaints(report: "Report", removal: "Removal") -> Iterator[str]:
    """Yield a line for whatever a person has to look at."""
    yield from removal.doubtful
    for outcome in report.outcomes:
        yield from (f"warning: {outcome.document}: {warning}" for warning in outcome.warnings)
    for outcome in report.failed:
        yield f"{_kind(outcome)}: {outcome.document}: {outcome.error}"


def _kind(outcome: "Outcome") -> str:
    # A service tells how many pages are stored, and names those that are missing in the error.
    has_some = outcome.stored or (outcome.faults and len(outcome.faults) < (outcome.pages or 0))
    return "incomplete" if has_some else "failed"


def report_as_json(report: "Report", removal: "Removal") -> str:
    """Return everything that became of documents, as JSON."""
    content = {
        "pages_stored": report.pages_stored,
        "documents": [asdict(outcome) for outcome in report.outcomes],
        "passed_over": report.passed_over,
        "renamed": report.renamed,
        "removed": removal.removed,
        "doubtful": removal.doubtful,
    }
    return show_json(content)
