"""What went wrong with the hub, in one line: errors of huggingface_hub and of the HTTP library below it become ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from costroute_rt.error import BundleError, ConfigError, CostrouteError, OutputError, Reason

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_BAD_ADDRESS = {"InvalidSchema", "InvalidURL", "LocationParseError", "MissingSchema", "UnsupportedProtocol"}
_BROKEN = {"ChunkedEncodingError", "ConnectionError", "ContentDecodingError", "NetworkError", "RemoteProtocolError", "Timeout"}
_BROKEN |= {"ConnectTimeout", "ReadTimeout", "TimeoutException", "TransportError"}
_LOG_IN = "set HF_TOKEN or run `hf auth login`"
_AGAIN = "run it again: it continues where it stopped"
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What was asked of the hub, for messages."""

    repo_id: str
    revision: str
    endpoint: str
    cache: str
    has_token: bool
    file: str | None = None
    """The file that was being downloaded; None for the list of files."""

    @property
    def host(self) -> str:
        """The hub's host, without a password that the address may hold."""
        return urlsplit(self.endpoint).netloc.rpartition("@")[2] or self.endpoint

    @property
    def page(self) -> str:
        """The repository's page."""
        address = urlsplit(self.endpoint)
        return f"{address.scheme or 'https'}://{self.host}{address.path}/{self.repo_id}"


def is_broken_connection(error: BaseException) -> bool:
    """Whether a connection could not be made, or ended early, so that another try may succeed."""
    return (
        not {"ProxyError", "SSLError"} & _names(error) and (_status(error) or 0) < 400 and bool(_BROKEN & _names(error) or _is_short(error))
    )


def is_unreachable(error: BaseException) -> bool:
    """Whether the hub did not answer, or not as one, so that what the cache holds is all there is."""
    names = _names(error)
    return is_broken_connection(error) or bool({"ProxyError", "SSLError", "FileMetadataError"} & names) or (_status(error) or 0) >= 500


def explain(error: BaseException, attempt: Attempt) -> CostrouteError:
    """The error to raise for what huggingface_hub raised."""
    found = _system_error(error, attempt)
    if found is not None:
        return found
    if _BAD_ADDRESS & _names(error):
        return ConfigError("HF_ENDPOINT", attempt.endpoint, "an address such as https://huggingface.co")
    problem, remedy = _refusal(error, attempt) or _connection(error, attempt) or _answer(error, attempt)
    return BundleError(attempt.repo_id, problem, remedy, reason=Reason.MISSING)


def _system_error(error: BaseException, attempt: Attempt) -> CostrouteError | None:
    """The error about the disk, or the rights of the cache or the file of the token, if it is one."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in _FULL:
            problem = "there is no room left for the download; free some space, or set HF_HOME to another disk"
            return OutputError(attempt.cache, problem, reason=Reason.FULL)
        if isinstance(each, OSError) and each.errno in _FORBIDDEN and isinstance(each.filename, str):  # sockets have no name
            remedy = "check who owns it, or set HF_HOME to a folder of your own"
            if each.filename.startswith(attempt.cache):
                return OutputError(each.filename, f"{each.strerror}; {remedy}", reason=Reason.PERMISSION)
            return BundleError(attempt.repo_id, f"{each.filename} cannot be read: {each.strerror}", remedy, reason=Reason.PERMISSION)
    return None


def _refusal(error: BaseException, attempt: Attempt) -> tuple[str, str] | None:
    """What a hub's refusal means, and what to do."""
    names, status, what = _names(error), _status(error), f"its file {attempt.file}" if attempt.file else "it"
    if "RevisionNotFoundError" in names:
        return f"it has no revision {attempt.revision}", f"choose a branch, a tag or a commit of {attempt.page}"
    if "GatedRepoError" in names:
        with_whom = f"then {_LOG_IN}" if not attempt.has_token else "with the account that your token belongs to"
        return "it is gated: its makers ask you to accept a licence first", f"accept it on {attempt.page}, {with_whom}"
    if "DisabledRepoError" in names:
        return "the hub has disabled it", "choose another repository"
    if status == 401 and attempt.has_token and "RepositoryNotFoundError" not in names:
        return f"{attempt.host} does not accept your token", "set HF_TOKEN to a valid one, or unset it for a public repository"
    if "RepositoryNotFoundError" in names or status == 401:
        remedy = "check the name" + ("" if attempt.has_token else f"; if it is private, {_LOG_IN}")
        return f"{attempt.host} has no such repository, or it is private, and no folder or file here is called that", remedy
    if status == 403:
        return f"{attempt.host} does not let your token read {what}", "use a token with the right to read it (HF_TOKEN)"
    if "RemoteEntryNotFoundError" in names or status == 404:
        return f"{attempt.host} does not have {what} in revision {attempt.revision}", "run it again, or choose another revision"
    if status == 429:
        return f"{attempt.host} limits how much you may ask", f"wait some minutes{'' if attempt.has_token else f', or {_LOG_IN}'}"
    return None


def _connection(error: BaseException, attempt: Attempt) -> tuple[str, str] | None:
    names, status, proxies = _names(error), _status(error), [name for name in _PROXIES if os.environ.get(name)]
    check_proxy = f"check the proxy's settings ({', '.join(proxies) or 'HTTPS_PROXY'})"
    if "ProxyError" in names:
        return f"the proxy on the way to {attempt.host} does not work", check_proxy
    if "SSLError" in names or any("CERTIFICATE_VERIFY_FAILED" in str(each) for each in _chain(error)):
        problem = f"the certificate of {attempt.host} cannot be verified"
        return problem, "check this machine's clock; behind a proxy that reads along, set REQUESTS_CA_BUNDLE to its certificate"
    if status is not None and status >= 500:
        return f"{attempt.host} failed with status {status}{_where(attempt)}", f"wait some minutes, then {_AGAIN}"
    if not is_broken_connection(error):
        return None
    if attempt.file is None:
        problem = f"the cache does not hold all of it, and {attempt.host} cannot be reached"
        remedy = "connect to the network, set HF_ENDPOINT to a mirror, or give a folder or file"
        return problem, f"{remedy}; or {check_proxy}" if proxies else remedy
    return f"the connection to {attempt.host} broke{_where(attempt)}, again and again", _AGAIN


def _answer(error: BaseException, attempt: Attempt) -> tuple[str, str]:
    """For everything else: an answer that is none of a hub, or an error that was not foreseen."""
    if {"FileMetadataError", "JSONDecodeError"} & _names(error) or isinstance(error, KeyError | TypeError | AttributeError):
        return f"{attempt.host} does not answer as a hub does{_where(attempt)}", "check HF_ENDPOINT, and a proxy or firewall on the way"
    status = _status(error)
    detail = f"status {status}" if status is not None else f"{type(error).__name__}: {_first_line(error)}"
    return f"{attempt.host} could not be read{_where(attempt)}: {detail}", "check HF_ENDPOINT and the network, then run it again"


def _where(attempt: Attempt) -> str:
    return f" at {attempt.file}" if attempt.file else ""


def _first_line(error: BaseException) -> str:
    """Without the queries of addresses, which may hold signatures."""
    words = (str(error).strip().splitlines() or [""])[0].split()
    return " ".join(word.partition("?")[0] if "://" in word else word for word in words)[:200]


def _is_short(error: BaseException) -> bool:
    """Whether a file ended before its length: huggingface_hub raises a plain OSError then."""
    return isinstance(error, OSError) and error.errno is None and "Consistency check failed" in str(error)


def _status(error: BaseException) -> int | None:
    """Status of the answer that an error is about."""
    for each in _chain(error):
        status = getattr(getattr(each, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _names(error: BaseException) -> set[str]:
    """Names of the classes of an error and its causes: requests and httpx, which huggingface_hub uses by version, share most of them."""
    return {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen:
        seen.append(each)
        yield each
        each = each.__cause__ or each.__context__
