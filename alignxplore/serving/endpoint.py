"""Any OpenAI-compatible endpoint, asked many times at once; used for policies, judges and teachers alike.

    endpoint = Endpoint("http://host:8000/v1")              # the model is the one the server names
    reply = await endpoint.chat(messages, max_tokens=64)    # raw JSON of /v1/chat/completions

Failures are typed. Time-outs, resets, 429, 5xx and bodies that are not JSON are retried with back-off for `patience`
seconds after the first of them and then raised as `TransportError`; what the server refuses (other 4xx) is raised at
once as `RequestError`. A server that answers nobody is given up by all that wait for it at once (`patience.py`).
"""

import asyncio
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import tenacity

from alignxplore.processes import allow_open_files
from alignxplore.serving.failures import RequestError, TransportError
from alignxplore.serving.http_answers import Retry, broken, json_object, read_text, redirected, refuse_failure
from alignxplore.serving.patience import Outage, OutOfPatience, failure_of
from alignxplore.serving.proxies import proxy_of
from alignxplore.serving.replies import plain
from alignxplore.serving.streaming import ASKED, Hear, whole_reply

log = logging.getLogger(__name__)

CONNECT_PATIENCE = 30.0  # seconds
EXTRA_FIELDS = ("top_k", "chat_template_kwargs", "skip_special_tokens")  # vLLM's, which other servers may refuse
UNKNOWN_FIELD = re.compile(
    r"un(?:known|recogni[sz]ed|supported|expected)|not (?:supported|permitted|allowed)|extra|additional", re.IGNORECASE
)
SILENCE = 60.0  # seconds after which it is said that a server has answered nothing yet


def parse_spec(spec: str) -> tuple[str, str]:
    """ "name=target" → (name, target); without a name it is the last part of the target. A target is a URL, path or
    hub id; an existing path is one, whatever signs it has."""
    name, equals, target = spec.partition("=")
    if equals and "/" not in name and not os.path.exists(spec):
        return name, target
    return last_part(spec), spec


def last_part(target: str) -> str:
    """What a target is called to which no name was given."""
    return target.rstrip("/").removesuffix("/v1").rsplit("/", 1)[-1]


def is_url(target: str) -> bool:
    """True for an endpoint, False for a model to be served here. A URL without a scheme is an error that says so."""
    if target.lower().startswith(("http://", "https://")):
        return True
    _, colon, port = target.split("/")[0].rpartition(":")
    if colon and port.isdigit():
        raise ValueError(f"'{target}' has no scheme; write http://{target}")
    return False


def _check_host(url: str) -> None:
    """Raise a ValueError for a URL without a host, or with a port that there is not."""
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0:
            return
    except ValueError:  # of the port, or of brackets that do not close
        pass
    raise ValueError(f"'{url}' names no host and port; an IPv6 address stands in brackets, as in http://[::1]:8000/v1")


def _choices(reply: dict, count: int) -> list[dict]:
    """Those of a reply of /v1/completions to `count` prompts, in their order. `TransportError` unless each has one."""
    try:
        choices = sorted(reply["choices"], key=lambda choice: choice["index"])
        places = [choice["index"] for choice in choices]
    except (KeyError, TypeError):
        choices, places = [], []
    if len(choices) != count:
        raise TransportError(f"{len(choices)} choices for {count} prompts")
    if places != list(range(count)):
        raise TransportError(f"choices {places} for {count} prompts")
    return choices


class Endpoint:
    """One model behind one base URL.

    Args:
        url: base URL up to and including /v1.
        model: the served name; None takes the only one that the server lists.
        api_key_env: NAME of the environment variable that holds the key; the key itself is never stored or printed.
        concurrency: requests in flight at most.
        timeout: seconds for one request.
        patience: seconds after its first failure when a request that keeps failing is given up; one that timed out is
            therefore sent at least once more, however long its time-out is. Requests that find nobody there share it:
            it then counts from the first failure since the server's last answer.
        watch: called after each failure; raises where asking again is in vain, such as `server.check_alive`.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        name: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 256,
        timeout: float = 600.0,
        patience: float = 300.0,
        watch: Callable[[], None] | None = None,
    ):
        if not is_url(url):
            raise ValueError(f"'{url}' is not a URL; start it with http:// or https://")
        _check_host(url)
        if completed := re.search(r"(/chat/completions|/completions|/models|\?.*)/?$", url):
            raise ValueError(f"{url}: its end is added here; give the base URL, {url[: completed.start()]}")
        if "@" in urlsplit(url).netloc:
            raise ValueError(
                "a URL with a user or password in it would reach logs and results; pass the key by --api-key-env"
            )
        if api_key_env and not os.environ.get(api_key_env, "").strip():
            raise ValueError(f"the environment variable {api_key_env} is not set; it should hold the key of {url}")
        if concurrency < 1:
            raise ValueError(f"concurrency {concurrency}: at least one request must be in flight")
        self.url = url.rstrip("/")
        self._proxy = proxy_of(self.url)
        self.model = model
        self.name = name or model or parse_spec(url)[0]
        self.root = model
        self.max_model_len: int | None = None
        self.repeats: Counter[str] = Counter()  # requests repeated so far, by what was wrong
        self.not_sent: tuple[str, ...] = ()  # fields that this server does not know
        self._api_key_env = api_key_env
        self._concurrency, self._timeout, self._patience = concurrency, timeout, patience
        self._watch, self._outage = watch, Outage(patience)
        self._session: aiohttp.ClientSession | None = None
        self._silence: asyncio.TimerHandle | None = None  # from the first question to the first answer

    async def __aenter__(self) -> Self:
        try:
            return await self.connect()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> Self:
        """Ask the server once which models it has; fills in `model`, `root` (path or hub id) and `max_model_len`.

        A model that was named is asked for even if the server does not list it, or lists nothing.

        Raises:
            TransportError: nobody there; known soon, since at the start that is more often a wrong address than a
                restart.
            RequestError: the key is refused, or it cannot be known which model is meant.
        """
        await self._find_model()
        return self

    async def _find_model(self) -> None:
        entries, problem = await self._listed()
        names = ", ".join(str(entry.get("id")) for entry in entries) or "none"
        matches = [entry for entry in entries if self.model in (None, entry.get("id"))]
        if len(matches) == 1:
            self.model = matches[0]["id"]
            self.root = matches[0].get("root") or self.model
            self.max_model_len = matches[0].get("max_model_len")
            return
        advice = f"{self.url} serves {names}; name one of them, as {self.url}@MODEL"
        if self.model is None:
            if isinstance(problem, RequestError):
                raise RequestError(problem.status, f"{problem.args[1]}; or name its model, as {self.url}@MODEL")
            raise RequestError(404, advice)
        try:
            await self.chat([{"role": "user", "content": "Hi"}], max_tokens=1)
        except RequestError as error:
            raise RequestError(error.status, f"{advice}; asked for {self.model} it says: {error.args[1]}") from None
        log.warning(
            "%s does not list %s (%s), but answers for it; its window and its weights are not known",
            self.url,
            self.model,
            problem or f"it lists {names}",
        )

    async def _listed(self) -> tuple[list[dict], Exception | None]:
        """The models that the server lists, and what kept it from listing them; a refused key, or no server at all, is
        an error."""
        patience = min(self._patience, CONNECT_PATIENCE if self.model is None else CONNECT_PATIENCE / 6)
        try:
            entries = (await self._request("GET", "/models", patience=patience)).get("data")
        except RequestError as error:
            hint = "" if self.url.endswith("/v1") else "; most base URLs end in /v1"
            problem = RequestError(error.status, f"{self.url}/models: {error.args[1]}{hint}")
            if error.status == 401:
                raise problem from None
            return [], problem
        except Retry as error:
            if error.kind in ("timeout", "connection"):
                raise TransportError(f"{self.url}: {error}") from None
            if self.model is None:
                raise TransportError(f"{self.url}/models: {error}; or name its model, as {self.url}@MODEL") from None
            return [], error
        return ([entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []), None

    def window(self, limit: int) -> int:
        """Tokens of a prompt and its answer: what the server says that it takes, but never more than `limit`, so that
        numbers compare."""
        return min(self.max_model_len or limit, limit)

    async def close(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def chat(
        self,
        messages: list[dict],
        *,
        usable: Callable[[dict], Any] | None = None,
        hear: Hear | None = None,
        **body: Any,
    ) -> dict:
        """POST /v1/chat/completions; returns the reply, whose first choice has a message. One for which `usable`
        raises `TransportError` is asked for again like a body that is not JSON. `hear` is told the answer as it grows.

        A server that refuses some of `EXTRA_FIELDS` as unknown is asked without these from then on (`not_sent`).
        """
        body |= ASKED if hear else {}
        while True:
            fields = {key: value for key, value in body.items() if key not in self.not_sent}
            request = {"model": self.model, "messages": messages} | fields
            try:
                reply = await self._request("POST", "/chat/completions", request, usable=usable, hear=hear)
                break
            except RequestError as error:
                refusals = [name for name in EXTRA_FIELDS if name in fields and name in str(error)]
                if error.status not in (400, 422) or not refusals or not UNKNOWN_FIELD.search(str(error)):
                    raise
                if additions := tuple(name for name in refusals if name not in self.not_sent):
                    self.not_sent += additions
                    log.warning(
                        "%s does not know %s and is asked without from now on (%s)",
                        self.url,
                        ", ".join(additions),
                        error,
                    )
        try:
            return plain(reply)
        except ValueError as error:
            raise TransportError(f"{self.url}: {error}: {self._hide(json.dumps(reply))[:200]}") from None

    async def complete(self, prompts: list[list[int]], *, again: bool = True, **body: Any) -> list[dict]:
        """POST /v1/completions with several prompts of token ids; returns the choice of each, in their order. A reply
        without one each is asked for again like a body that is not JSON; without `again` it is an error at once."""

        def usable(reply: dict) -> None:
            _choices(reply, len(prompts))

        request = {"model": self.model, "prompt": prompts} | body
        reply = await self._request("POST", "/completions", request, usable=usable if again else None)
        return _choices(reply, len(prompts))

    async def _request(
        self,
        method: str,
        path: str,
        body: dict | None = None,
        patience: float | None = None,
        usable: Callable[[dict], Any] | None = None,
        hear: Hear | None = None,
    ) -> dict:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # vLLM closes connections that were idle for 5 s; a request sent at that moment would have to be
                # repeated.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            )
            allow_open_files()
            # Our own gate, not the connector's: time-out and patience must start once a request is let through, not in
            # the queue.
            self._slots = asyncio.Semaphore(self._concurrency)
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Retry),
            wait=_back_off,
            stop=OutOfPatience(self._patience if patience is None else patience, self._outage),
            before_sleep=self._count_retry,
            reraise=True,
        )
        async with self._slots:
            try:
                answer: dict = await attempts(self._attempt, method, path, body, usable, hear)
            except RequestError:
                self._outage.end()
                raise
        self._outage.end()
        return answer

    async def _attempt(
        self, method: str, path: str, body: dict | None, usable: Callable[[dict], Any] | None, hear: Hear | None
    ) -> dict:
        assert self._session is not None  # `_request` opens it
        limit = self._timeout if body else min(self._timeout, CONNECT_PATIENCE)
        if body and self._silence is None:
            text = "%s has answered nothing for %g s; an answer is waited for up to %g s"
            self._silence = asyncio.get_running_loop().call_later(
                SILENCE, log.warning, text, self.url, SILENCE, self._timeout
            )
        # Not the session's own headers: aiohttp tells those to a proxy, too.
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            async with (
                asyncio.timeout(limit),
                self._session.request(method, self.url + path, json=body, headers=headers, proxy=self._proxy) as reply,
            ):
                text = await (whole_reply(reply, hear) if hear and reply.status < 400 else read_text(reply))
                if self._silence is not None:
                    self._silence.cancel()
                refuse_failure(reply, method, self._hide(text), self._about_key(reply.status))
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise broken(error, limit, self._way) from None
        answer = json_object(text, self._hide, redirected(reply))
        if usable:
            try:
                usable(answer)
            except TransportError as error:
                raise Retry(str(error), kind="unusable") from None
        return answer

    @property
    def retries(self) -> int:
        """Requests repeated so far."""
        return self.repeats.total()

    @property
    def _key(self) -> str:
        return os.environ[self._api_key_env].strip() if self._api_key_env else ""

    def _about_key(self, status: int) -> str:
        if status not in (401, 403):
            return ""
        if self._api_key_env:
            return f" (the key is that of the environment variable {self._api_key_env})"
        return " (no key was sent; --api_key_env, in RL judge_api_key_env, names the variable that holds one)"

    @property
    def _way(self) -> str:
        """What to say of a connection that failed on its way through a proxy."""
        if not self._proxy:
            return ""
        host = urlsplit(self.url).hostname
        proxy = urlsplit(self._proxy).netloc.rpartition("@")[2]
        return f" (through the proxy {proxy}; NO_PROXY={host} goes around it)"

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text  # some gateways quote the key in their errors

    def _count_retry(self, state: tenacity.RetryCallState) -> None:
        if self._watch:
            self._watch()
        error = failure_of(state)
        self.repeats[error.kind] += 1
        if self.retries in (1, 10) or self.retries % 100 == 0:
            log.warning("%s: %s; trying again (%d repeats so far)", self.url, error, self.retries)


_jittered = tenacity.wait_exponential(multiplier=0.5, max=20) + tenacity.wait_random(0, 1)


def _back_off(state: tenacity.RetryCallState) -> float:
    return max(_jittered(state), failure_of(state).pause)
