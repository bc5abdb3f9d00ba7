"""What is tried again, how often, and after how long. Tenacity decides; nothing sleeps here."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity
from tenacity import DoAttempt, DoSleep, RetryCallState

from pagevec.client.endpoints import Endpoints
from pagevec.client.faults import ServiceError, Unreachable
from pagevec.client.steps import Exchange, Sleep

T = TypeVar("T")
_TOO_MANY_REQUESTS, _INTERNAL, _UNAVAILABLE = 429, 500, 503
_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=30)


@dataclass(frozen=True)
class Policy:
    """How much is tried.

    Attributes:
        attempts: of a request at each endpoint that fails or does not answer.
        patience: seconds for which a busy or starting service (429, 503) is asked again.
    """

    attempts: int = 3
    patience: float = 300.0


def is_passing(error: BaseException) -> bool:
    """Whether another try may succeed: 429, 5xx, no answer."""
    if isinstance(error, ServiceError):
        status = error.response.status_code
        return status == _TOO_MANY_REQUESTS or status >= _INTERNAL
    return isinstance(error, Unreachable)


def retried(ask: Callable[[], Exchange[T]], policy: Policy, endpoints: Endpoints) -> Exchange[T]:
    """Ask until it succeeds, the fault will not pass, or `policy` says enough.

    Raises:
        PagevecError: what the last try raised.
    """
    retrying = _retrying(policy, endpoints)
    retrying.begin()
    state = RetryCallState(retrying, fn=None, args=(), kwargs={})
    # The loop of tenacity's own `Retrying.__call__`, with steps in the place of calls.
    while isinstance(do := retrying.iter(state), (DoAttempt, DoSleep)):
        if isinstance(do, DoSleep):
            state.prepare_for_next_attempt()
            yield Sleep(do)
            continue
        try:
            state.set_result((yield from ask()))
        except Exception:
            state.set_exception(sys.exc_info())  # type: ignore[arg-type]
    result: T = do
    return result


def _retrying(policy: Policy, endpoints: Endpoints) -> tenacity.Retrying:
    def wait(state: RetryCallState) -> float:
        if endpoints.any_ready():
            return 0.0  # another one is asked
        return (getattr(_error(state), "retry_after", None) or 0.0) + _backoff(state)

    def enough(state: RetryCallState) -> bool:
        if _is_busy(_error(state)):
            return (state.seconds_since_start or 0.0) + state.upcoming_sleep > policy.patience
        return state.attempt_number >= policy.attempts * len(endpoints)

    retry = tenacity.retry_if_exception(is_passing)
    return tenacity.Retrying(retry=retry, wait=wait, stop=enough, reraise=True)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _is_busy(error: BaseException | None) -> bool:
    return isinstance(error, ServiceError) and error.response.status_code in (
        _TOO_MANY_REQUESTS,
        _UNAVAILABLE,
    )
