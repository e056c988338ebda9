"""The gateway's settings: one file holds them, beside the policy's own.

policy = "dlpm"                 # the settings of any host, see `fairprefix config show`
[router]                        # those of fairprefix.core.router_config.RouterConfig
router = "d2lpm"
[gateway]                       # those of GatewayConfig
port = 8080
[redis]                         # those of gateway.shared.config.RedisConfig, if gateways share
url = "redis://10.0.0.9:6379"
[[workers]]                     # those of WorkerConfig, one table per worker
url = "http://10.0.0.5:8000"
[[keys]]                        # those of KeyConfig, one table per API key
client = "research"
sha256 = "2bb8..."
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
from attrs import Factory, frozen

from fairprefix.configfile import make_config
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError, at_least, nearest, one_of, reject
from fairprefix.core.router_config import RouterConfig
from fairprefix.gateway.shared.config import RedisConfig
from fairprefix.hosting import clean_name
from fairprefix.hosting.listen import check_port
from fairprefix.hosting.peers import TrustedPeers

FAIR_WORKERS = ("vllm", "sglang", "serve")
"""What fairprefix may run in at a worker: vLLM, SGLang, or the reference engine's server."""
TABLES = ("router", "gateway", "workers", "keys", "redis")
QUANTUM = 256
"""The default of a gateway by itself, in service units (docs/integrate/gateway.md says why)."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME_OF_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@frozen(kw_only=True)
class WorkerConfig:
    """An OpenAI-compatible server behind the gateway.

    Raises:
        ConfigError: a value is outside its range; the message names the field, the value and the range.
    """

    url: str
    """http://HOST:PORT, without /v1."""
    name: str = ""
    """In figures and logs; by default the URL."""
    window: int | None = None
    """The most requests that are at the worker at once; None: learnt from its /metrics."""
    fairprefix: str = ""
    """Set it if the worker runs fairprefix itself (vllm, sglang, serve): then requests do not queue here, and the
    client's name is forwarded in that worker's own carrier."""
    weight: int = 1
    """Its share of the work, relative to the others'."""
    blocks: int | None = None
    """Blocks of `block_size` tokens that its prefix cache holds; None: the router's `worker_blocks`."""
    api_key_env: str = ""
    """Environment variable that holds the key that the worker asks for."""
    kv_events: str = ""
    """ZMQ endpoint of its KV events (router index "exact"), such as tcp://10.0.0.5:5557."""
    kv_replay: str = ""
    """ZMQ endpoint at which it replays missed events."""
    kv_block_limit: int = 1_000_000
    """The most of its blocks that are followed."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        parts = urlsplit(str(self.url))
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise reject("worker url", self.url, "http://HOST:PORT")
        if parts.username or parts.password:
            raise ConfigError("worker url: holds a password, which would end up in logs: use api_key_env")
        object.__setattr__(self, "url", self.url.rstrip("/"))
        object.__setattr__(self, "name", clean_name(self.name) or self.url)
        if self.window is not None:
            at_least("window", self.window, 1)
        if self.fairprefix:
            one_of("fairprefix", self.fairprefix, FAIR_WORKERS)
        at_least("weight", self.weight, 1)
        at_least("kv_block_limit", self.kv_block_limit, 1)
        for name in ("kv_events", "kv_replay"):
            address = getattr(self, name)
            if address and not address.startswith(("tcp://", "ipc://")):
                raise reject(name, address, "a ZeroMQ address such as tcp://10.0.0.5:5557")
        if self.kv_replay and not self.kv_events:
            raise reject("kv_replay", self.kv_replay, "kv_events beside it")
        if self.blocks is not None:
            at_least("blocks", self.blocks, 1)
        if self.api_key_env and not _NAME_OF_VARIABLE.fullmatch(self.api_key_env):
            raise reject("api_key_env", self.api_key_env, "the name of an environment variable")


@frozen(kw_only=True)
class KeyConfig:
    """An API key, by its hash, and whose it is.

    Raises:
        ConfigError: as for WorkerConfig.
    """

    client: str
    sha256: str
    """SHA-256 of the key in hexadecimal: `fairprefix gateway --hash-key`."""
    weight: int | None = None
    """The client's share of service; None: what [weights] says."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        if clean_name(self.client) != self.client:
            raise reject("key client", self.client, "a printable name of at most 128 characters")
        if not _DIGEST.fullmatch(str(self.sha256)):
            raise ConfigError("key sha256: expected 64 hexadecimal digits: fairprefix gateway --hash-key")
        if self.weight is not None:
            at_least("key weight", self.weight, 1)


@frozen(kw_only=True)
class GatewayConfig:
    """How the gateway listens, whom it trusts, and what it bears.

    Raises:
        ConfigError: as for WorkerConfig.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    """0: a free one."""
    admin_host: str = "127.0.0.1"
    """Where figures and state are shown: metrics, /admin/state."""
    admin_port: int = 8081
    trusted: tuple[str, ...] = ()
    """Proxies, as addresses or networks (CIDR), whose headers may name clients; * for everybody."""
    pass_through: tuple[str, ...] = ("/v1/", "/tokenize", "/detokenize")
    """Paths that begin like this are passed on even if they are unknown; "/" passes everything, also what manages
    the worker."""
    max_body: int = 32 << 20
    """Bytes of a request, else 413."""
    max_queued: int = 1000
    """Requests of one client that wait, else 429."""
    max_waiting: int = 100_000
    """Requests that wait in all, else 503."""
    queue_timeout_s: int = 600
    """Seconds in the queue, else 504."""
    read_timeout_s: int = 600
    """Seconds between two pieces of an answer, else the worker has failed."""
    connect_timeout_s: int = 5
    write_timeout_s: int = 120
    """Seconds that a client may leave what it is sent unread before it is cut off."""
    retries: int = 2
    """How often a request of which nothing was delivered is sent again."""
    health_path: str = "/health"
    """Any answer below 500 means that the worker is alive."""
    health_interval_s: float = 2.0
    breaker_failures: int = 5
    """Failed answers in a row after which a worker is given a rest..."""
    breaker_rest_s: int = 5
    """...of so many seconds."""
    window: int = 32
    """Window of a worker of which nothing has been learnt yet."""
    window_max: int = 1024
    """The largest window that is learnt."""
    assumed_output: int = 256
    """Output tokens of a request that sets no limit, until something is known of its client's."""
    bytes_per_token: int = 4
    """Bytes of text that count as one token until the worker says how many there were."""
    state: str = ""
    """File in which deficits and debts survive a restart, or redis:NAME; without one they do not."""
    state_interval_s: float = 5.0
    tokenizer: str = ""
    """Folder with the model's tokenizer.json and, for chats, its template: what the index "exact" needs to
    know which blocks a prompt given as text has."""
    drain_s: int = 30
    """Seconds for requests to finish in after SIGTERM."""
    names: int = 1000
    """Clients that are told apart in figures."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for name in ("port", "admin_port"):
            check_port(name, getattr(self, name))
        for name in ("max_body", "max_queued", "max_waiting", "queue_timeout_s", "read_timeout_s",
                     "connect_timeout_s", "write_timeout_s", "breaker_failures", "window", "window_max",
                     "assumed_output", "bytes_per_token", "drain_s", "names"):  # fmt: skip
            at_least(name, getattr(self, name), 1)
        for name in ("retries", "breaker_rest_s"):
            at_least(name, getattr(self, name), 0)
        for name in ("health_interval_s", "state_interval_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise reject(name, value, "a number of seconds > 0")
        for name in ("trusted", "pass_through"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        TrustedPeers(self.trusted)


@frozen(kw_only=True)
class Settings:
    """Everything that a gateway is told."""

    policy: PolicyConfig
    router: RouterConfig
    gateway: GatewayConfig
    workers: tuple[WorkerConfig, ...]
    keys: tuple[KeyConfig, ...] = Factory(tuple)
    redis: RedisConfig | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse names that are given twice, and a gateway without workers."""
        if not self.workers:
            raise ConfigError("workers: there is none: give --worker URL, or a table [[workers]] in the file")
        for what, names in (
            ("worker name", [worker.name for worker in self.workers]),
            ("worker url", [worker.url for worker in self.workers]),
            ("key sha256 of client", [key.sha256 for key in self.keys]),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice:
                raise ConfigError(f"{what} {twice!r} is given twice")
        _check_index(self)


def _check_index(settings: Settings) -> None:
    """Refuse an exact index that nobody tells of, and events that nobody listens to."""
    exact = settings.router.index == "exact"
    for worker in settings.workers:
        if exact and not worker.kv_events:
            raise ConfigError(
                f"worker {worker.name!r}: kv_events is missing, which index = 'exact' in [router] needs"
            )
        if worker.kv_events and not exact:
            raise ConfigError(
                f"worker {worker.name!r}: kv_events is of no use without index = 'exact' in [router]"
            )
    if settings.gateway.tokenizer and not exact:
        raise ConfigError("tokenizer is of no use without index = 'exact' in [router]")


def make_settings(values: Mapping[str, Any], source: str, workers: Sequence[WorkerConfig] = ()) -> Settings:
    """Return the settings in parsed TOML, JSON or YAML.

    Args:
        values: what the file says.
        source: where it came from, for messages.
        workers: further ones.

    Raises:
        ConfigError: a setting is unknown or invalid.
    """
    try:
        tables = {name: values.get(name) for name in TABLES}
        gateway = _build(GatewayConfig, tables["gateway"] or {}, "[gateway]")
        keys = tuple(_build(KeyConfig, table, "[[keys]]") for table in _tables("keys", tables["keys"]))
        listed = [_build(WorkerConfig, table, "[[workers]]") for table in _tables("workers", tables["workers"])]
        redis = None if tables["redis"] is None else _build(RedisConfig, tables["redis"], "[redis]")
        policy = _policy(
            {key: value for key, value in values.items() if key not in TABLES},
            keys,
            source,
            shared=redis is not None,
        )
        router = _router(tables["router"] or {}, policy)
        listed += workers
        return Settings(
            policy=policy, router=router, gateway=gateway, workers=tuple(listed), keys=keys, redis=redis
        )
    except ConfigError as problem:
        text = str(problem)
        raise ConfigError(text if text.startswith(source) else f"{source}: {text}") from None


def _policy(given: Mapping[str, Any], keys: Sequence[KeyConfig], source: str, *, shared: bool) -> PolicyConfig:
    """Return the policy's settings.

    A gateway learns of output late, so the gate looks at what is outstanding. Prefixes usually all fit into the
    workers' caches, where a small quantum costs nothing; with a shared ledger, though, a refill is a question to
    Redis.
    """
    usual = {"gate": "credit"} if shared else {"gate": "credit", "quantum": QUANTUM}
    policy = make_config({**usual, **given}, source)
    weights = {**policy.weights, **{key.client: key.weight for key in keys if key.weight is not None}}
    return attrs.evolve(policy, weights=weights)


def _router(given: Mapping[str, Any], policy: PolicyConfig) -> RouterConfig:
    """Return the router's settings, which share weights and costs with the policy unless they have their own."""
    if not isinstance(given, Mapping):
        raise reject("[router]", given, "a table of settings")
    shared = {"weights": policy.weights, "default_weight": policy.default_weight, "output_charge": "average"}
    shared |= {"cost_extend": policy.cost_extend, "cost_output": policy.cost_output}
    return RouterConfig.from_mapping({**shared, **given})


_T = TypeVar("_T")


def _build(cls: type[_T], values: object, where: str) -> _T:
    """Return a settings object, or name the setting that does not exist."""
    if not isinstance(values, Mapping):
        raise reject(where, values, "a table of settings")
    known = [attribute.name for attribute in attrs.fields(cls)]  # type: ignore[arg-type]  # each is an attrs class
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown setting {key!r}{nearest(str(key), known)}; known: {', '.join(known)}"
            )
    required = [a.name for a in attrs.fields(cls) if a.default is attrs.NOTHING]  # type: ignore[arg-type]
    for name in required:
        if name not in values:
            raise ConfigError(f"{where}: {name} is missing")
    return cls(**values)


def _tables(name: str, value: object) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise reject(name, value, f"tables, each under [[{name}]]")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise reject(name, value, "a list of texts")
    return tuple(value)
