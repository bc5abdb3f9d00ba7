"""`python -m pagevec.probe`: is the service of this machine ready? The health check of containers.

It asks the address that the settings name, with the standard library only: it runs every few
seconds beside the service.
"""

import http.client
import ipaddress
import sys
import urllib.request

_SECONDS = 4.0


def local_url(host: str, port: int) -> str:
    """Return the address at which this machine reaches a service that listens on `host`.

    One that listens on all addresses (`0.0.0.0`, `::`) has none of its own: it is asked on
    loopback.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def main() -> None:
    """Exit with 0 if the service is ready, else with 1 and the reason."""
    from pagevec.settings import Settings  # not for those who need `local_url` alone

    settings = Settings.from_environment()
    url = f"{local_url(settings.host, settings.port)}/ready"
    # A proxy of the environment is for addresses elsewhere.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(url, timeout=_SECONDS).close()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main()
