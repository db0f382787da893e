"""Words of Compose, docker run and Kubernetes, and plain slips of the pen -> what our manifests call it.

Feeds the hints of `validate.py` and `desire.py`. Text in, text out.
"""

import re
from collections.abc import Iterable, Sequence

_KEYS = {
    # Compose
    "services": "containers",
    "service": "containers",
    "version": "apiVersion",
    "environment": "env",
    "volumes": "mounts",
    "restart_policy": "restart",
    "working_dir": "workdir",
    "stop_grace_period": "stop_grace",
    "expose": "every port is open to the container's networks already; leave it out",
    "container_name": "the key under `containers:` is the name; leave it out",
    "deploy": "`resources` for limits, `restart`, `replicas`, `update`",
    "scale": "replicas",
    "access": "volumes: {NAME: {access: shared}}",
    "per_replica": "volumes: {NAME: {per_replica: true}}",
    "moved": "volumes: {NAME: {moved: {from: OLD}}}",
    "on_unhealthy": "healthcheck: {on_unhealthy: …}",
    "links": "`networks` and `depends_on`",
    "logging": "logs",
    "build": "images: {NAME: {build: …}}",
    "network_mode": "networks: [host] or networks: [none]",
    "cpus": "resources: {cpus: …}",
    "cpu": "resources: {cpus: …}",
    "mem_limit": "resources: {memory: …}",
    "memory": "resources: {memory: …}",
    "pids_limit": "resources: {pids: …}",
    "pids": "resources: {pids: …}",
    "tmpfs": "mounts: [{type: tmpfs, target: …}]",
    "profiles": "write what belongs together into a manifest of its own",
    "pull_policy": "images: {NAME: {pull: …}}",
    "platform": "images: {NAME: {platform: …}}",
    "domainname": "hostname",
    "stdin_open": "stdin",
    "external": "from",
    "ipam": "`subnet` and `gateway`",
    "enable_ipv6": "ipv6",
    "attachable": "every network can be joined; leave it out",
    "ipv4_address": "ipv4",
    "ipv6_address": "ipv6",
    "mac_address": "mac",
    "published": "`[HOST_IP:]HOST:CONTAINER[/udp]`",
    "extends": "YAML anchors and `<<` merges",
    "include": "give several manifests to `apply`",
    "disable": "test: [NONE]",
    "destination": "target",
    "dst": "target",
    "src": "source",
    "readonly": "read_only",
    "ro": "read_only",
    "tmpfs_size": "size",
    "volume": "`subpath` beside `source`",
    "bind": "`type: bind`",
    "limits": "`cpus`, `memory` and `pids` themselves",
    "reservations": "`cpus`, `memory` and `pids` are limits; nothing is reserved",
    # docker run
    "name": "the key is the name; leave it out",
    "publish": "ports",
    "port": "ports",
    "mount": "mounts",
    "network": "networks",
    "net": "networks",
    "network_alias": "networks: {NAME: {aliases: […]}}",
    "network-alias": "networks: {NAME: {aliases: […]}}",
    "ip": "networks: {NAME: {ipv4: …}}",
    "add_host": "extra_hosts",
    "add-host": "extra_hosts",
    "cap-add": "cap_add",
    "cap-drop": "cap_drop",
    "env-file": "env_file",
    "envfile": "env_file",
    "ulimit": "ulimits",
    "sysctl": "sysctls",
    "label": "labels",
    "read-only": "read_only",
    "shm-size": "shm_size",
    "stop-signal": "stop_signal",
    "stop_timeout": "stop_grace",
    "stop-timeout": "stop_grace",
    "log_opt": "logs",
    "log-opt": "logs",
    "log_driver": "logs",
    "health_cmd": "healthcheck: {test: …}",
    "cmd": "command",
    "dns-search": "dns_search",
    "hosts": "extra_hosts",
    "max-size": "max_size",
    "max-file": "keep",
    "max_file": "keep",
    # Kubernetes
    "kind": "a manifest is always a stack; leave it out",
    "metadata": "name",
    "spec": "`containers`, `networks` and `volumes` at the top",
    "args": "command",
    "livenessProbe": "healthcheck",
    "readinessProbe": "healthcheck",
    "startupProbe": "healthcheck: {start_period: …}",
    "imagePullPolicy": "images: {NAME: {pull: …}}",
    "restartPolicy": "restart",
    "volumeMounts": "mounts",
    "containerPort": "ports",
    "workingDir": "workdir",
    "securityContext": "`user`, `read_only`, `cap_add` and `cap_drop`",
    "terminationGracePeriodSeconds": "stop_grace",
    "initContainers": "depends_on",
    "envFrom": "env_file",
    "hostNetwork": "networks: [host]",
    "hostAliases": "extra_hosts",
    "runAsUser": "user",
    "mountPath": "target",
    "subPath": "subpath",
    "readOnly": "read_only",
    "periodSeconds": "interval",
    "timeoutSeconds": "timeout",
    "initialDelaySeconds": "start_period",
    "failureThreshold": "retries",
    "exec": "test",
    "httpGet": "http",
    "tcpSocket": "tcp",
    "requests": "`cpus`, `memory` and `pids` are limits; nothing is requested",
    "configMaps": "configs",
    "replicaCount": "replicas",
}

_ELSEWHERE = {
    "external": "nothing lives outside of a stack here: name its file, or the value itself",
    "environment": "write content: ${NAME}",
    "template_driver": "`content` may hold ${VAR}; leave it out",
}
"""Where the counterpart of `_KEYS` can't stand."""

_VALUES = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
    "IfNotPresent": "missing",
    "if_not_present": "missing",
    "Always": "always",
    "Never": "never",
    "OnFailure": "on-failure",
    "any": "always",
    "none": "no",
    "never": "no",
    "false": "no",
    "true": "always",
    "yes": "true",
    "on": "true",
    "y": "true",
    "off": "false",
    "no": "false",
    "n": "false",
    "npipe": "bind",
}


def suggest_key(key: str, allowed: Iterable[str]) -> str:
    """A hint for an unknown key, given those that may stand there; empty where nothing comes near."""
    names = sorted(allowed)
    counterpart = _KEYS.get(key, "")
    if counterpart in names:
        return f"did you mean {counterpart}?"
    if key in _ELSEWHERE and "file" in names:
        return _ELSEWHERE[key]
    for spelling in (key.lower().replace("-", "_"), "".join(f"_{c.lower()}" if c.isupper() else c for c in key)):
        if spelling in names:
            return f"did you mean {spelling}?"
    inner = re.findall(r"\{(\w+): …", counterpart)
    if inner and inner[-1] in names:
        return f"did you mean {inner[-1]}?"
    near = _find_near(key, names, n=1, cutoff=0.7)
    if near and " " not in counterpart:
        return f"did you mean {near[0]}?"
    if not counterpart:
        near = _find_near(key, _KEYS, n=1, cutoff=0.8)
        return suggest_key(near[0], names) if near else _list_names(names)
    if " " in counterpart:
        return f"here it is {counterpart}" if "leave it out" not in counterpart else counterpart
    return _list_names(names)


def _list_names(names: Sequence[str]) -> str:
    return f"known here: {', '.join(names)}" if 0 < len(names) <= 12 else ""


def suggest_value(value: str, allowed: Sequence[str]) -> str:
    """A hint for a value that is none of those allowed; empty where nothing comes near."""
    counterpart = _VALUES.get(value, "")
    if counterpart in allowed:
        return f"did you mean {counterpart}?"
    near = _find_near(value.lower(), allowed, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def _find_near(word: str, names: Iterable[str], *, n: int, cutoff: float) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(word, list(names), n=n, cutoff=cutoff)
