"""Is anybody there? What a command asks once, before it waits patiently for answers."""

import httpx

from pagevec.client.connections import CertificateAuthority, trust
from pagevec.client.faults import Misaddressed, Unreachable, wrap_error
from pagevec.client.retry import normalize_url

_SECONDS = httpx.Timeout(10.0, read=5.0)


def require_answer(
    url: str, ca: CertificateAuthority | None = None, named_by: str = "--url or PAGEVEC_URL"
) -> None:
    """Ask the service at `url` for a sign of life, once; any answer is one.

    So is an open connection without an answer: a container that scales to zero starts behind it.

    Args:
        url: address of the service.
        ca: whom to trust for https.
        named_by: the option that gives another address.

    Raises:
        Unreachable: nobody answers there.
        ConfigurationError: `url` is no address, or `ca` holds no certificates.
    """
    address = f"{normalize_url(url)}/health"
    try:
        with httpx.Client(verify=trust(ca, url), trust_env=False, timeout=_SECONDS) as http:
            http.get(address)
    except (httpx.ReadTimeout, httpx.WriteTimeout):
        return
    except httpx.RequestError as error:
        wrapped = wrap_error(error, url)
        if isinstance(wrapped, Misaddressed):
            raise wrapped from None
        raise Unreachable(
            f"no service answers at {url}: is it running? Start one with `pagevec serve`, or name "
            f"another address with {named_by} ({error})"
        ) from None
