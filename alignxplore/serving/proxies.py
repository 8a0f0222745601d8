"""The proxy that the environment names for an endpoint: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl reads
them.

A server on this machine is never asked through one. aiohttp's own reading of the environment is not used: it also
sends passwords out of ~/.netrc.
"""

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_of(url: str) -> str | None:
    """URL of the proxy that `url` is reached through; None: directly.

    Raises:
        ValueError: a proxy that speaks no HTTP.
    """
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    if not proxy or is_loopback(host) or proxy_bypass(parts.netloc) or _in_networks(host, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme = urlsplit(proxy).scheme
    if scheme not in ("http", "https"):
        raise ValueError(
            f"the environment names a {scheme} proxy for {url}, and only HTTP ones can be used; "
            f"set {parts.scheme.upper()}_PROXY, or NO_PROXY={host} to go around it"
        )
    return proxy


def is_loopback(host: str) -> bool:
    """True for names and addresses of this machine itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _in_networks(host: str, networks: str) -> bool:
    """Whether an address lies in a network of NO_PROXY (203.0.113.0/24), which Python's own reading overlooks."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for item in networks.split(","):
        try:
            if address in ipaddress.ip_network(item.strip(), strict=False):
                return True
        except ValueError:  # a name
            continue
    return False
