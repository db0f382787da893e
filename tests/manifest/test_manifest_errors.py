"""What people read when a manifest is wrong: whole texts, and each fault with its place."""

import pytest
from manifest_reading import HEAD, brief, problems, told

GOLDEN = """\
apiVersion: reconcile/v1
name: blog
services: {}
images:
  app: {build: {context: ./app}}
containers:
  web:
    image: app
    memry: 256M
    environment: {A: 1}
    restart: never
    ports: ["[::1]:8080:80"]
    depends_on: {cache: service_healthy}
    privileged: true
"""

GOLDEN_ERRORS = """\
stack.yaml:3:1 services: unknown key
3 | services: {}
  | ^
  hint: did you mean containers?
stack.yaml:5:9 images.app.build: not built yet
5 |   app: {build: {context: ./app}}
  |         ^
stack.yaml:9:5 containers.web.memry: unknown key
9 |     memry: 256M
  |     ^
  hint: here it is resources: {memory: …}
stack.yaml:10:5 containers.web.environment: unknown key
10 |     environment: {A: 1}
   |     ^
  hint: did you mean env?
stack.yaml:11:14 containers.web.restart: found "never"; expected always, unless-stopped, on-failure, on-failure:N or no
11 |     restart: never
   |              ^
  hint: did you mean no?
stack.yaml:12:13 containers.web.ports[0]: publishing on [::1] is not possible
12 |     ports: ["[::1]:8080:80"]
   |             ^
  hint: publish on 127.0.0.1
stack.yaml:13:25 containers.web.depends_on.cache: found "service_healthy"; expected started, healthy, completed or a map
13 |     depends_on: {cache: service_healthy}
   |                         ^
  hint: did you mean healthy?
stack.yaml:14:5 containers.web.privileged: not built yet
14 |     privileged: true
   |     ^
  hint: add the capabilities that it needs with cap_add"""


def test_all_errors_of_a_file_are_told_at_once_with_place_caret_and_hint():
    assert told(GOLDEN) == GOLDEN_ERRORS


HINTS = {
    "containers: {w: {image: a/b:1, on_unhealthy: restart}}": "here it is healthcheck: {on_unhealthy: …}",
    "containers: {w: {image: a/b:1, moved: {from: v}}}": "here it is volumes: {NAME: {moved: {from: OLD}}}",
    "containers: {w: {image: a/b:1, volumes: []}}": "did you mean mounts?",
    "containers: {w: {image: a/b:1, restart_policy: x}}": "did you mean restart?",
    "containers: {w: {image: a/b:1, container_name: x}}": "the key under `containers:` is the name; leave it out",
    "containers: {w: {image: a/b:1, deploy: {}}}": "here it is `resources` for limits, `restart`, `replicas`, `update`",
    "containers: {w: {image: a/b:1, mem_limit: 1}}": "here it is resources: {memory: …}",
    "containers: {w: {image: a/b:1, cpus: 1}}": "here it is resources: {cpus: …}",
    "containers: {w: {image: a/b:1, network_mode: host}}": "here it is networks: [host] or networks: [none]",
    "containers: {w: {image: a/b:1, working_dir: /}}": "did you mean workdir?",
    "containers: {w: {image: a/b:1, cap-add: []}}": "did you mean cap_add?",
    "containers: {w: {image: a/b:1, publish: []}}": "did you mean ports?",
    "containers: {w: {image: a/b:1, livenessProbe: {}}}": "did you mean healthcheck?",
    "containers: {w: {image: a/b:1, volumeMounts: []}}": "did you mean mounts?",
    "containers: {w: {image: a/b:1, stopSignal: 3}}": "did you mean stop_signal?",
    "containers: {w: {image: a/b:1, Image: 3}}": "did you mean image?",
    "containers: {w: {image: a/b:1, resources: {mem_limit: 3}}}": "did you mean memory?",
    "containers: {w: {image: a/b:1, resources: {limits: {}}}}": "here it is `cpus`, `memory` and `pids` themselves",
    "containers: {w: {image: a/b:1, healthcheck: {test: a, periodSeconds: 1}}}": "did you mean interval?",
    "containers: {w: {image: a/b:1, healthcheck: {test: a, disable: true}}}": "here it is test: [NONE]",
    "containers: {w: {image: a/b:1, restart: OnFailure}}": "did you mean on-failure?",
    "containers: {w: {image: a/b:1, restart: false}}": "did you mean no?",
    "containers: {w: {image: a/b:1, read_only: yes}}": "did you mean true?",
    "containers: {w: {image: a/b:1, hostname: 5}}": 'quote it: "5"',
    "containers: {w: {image: a/b:1, resources: {pids: 010}}}": (
        "write it in plain decimals, without quotes and leading zeros"
    ),
    "containers: {x: {image: a/b:1}, w: {image: a/b:1, depends_on: {x: {condition: service_started}}}}": (
        "did you mean started?"
    ),
    "images: {a: {from: b, pull: IfNotPresent}}": "did you mean missing?",
    "networks: {a: {ipam: {}}}": "here it is `subnet` and `gateway`",
    "networks: {a: {external: true}}": "did you mean from?",
    "kind: Pod": "a manifest is always a stack; leave it out",
    "netwroks: {}": "did you mean networks?",
}


@pytest.mark.parametrize("text", HINTS)
def test_words_of_other_tools_and_slips_get_their_counterpart(text: str):
    found = problems(HEAD + text)
    assert [problem.hint for problem in found] == [HINTS[text]]
    assert found[0].line == 3


FAULTS = {
    # unknown names
    "containers: {w: {image: redis}}": "1:25 containers.w.image: no image named redis",
    "containers: {w: {image: a/b:1, networks: [lan]}}": "1:43 containers.w.networks[0]: no network named lan",
    "containers: {w: {image: a/b:1, networks: {lan: }}}": "1:43 containers.w.networks.lan: no network named lan",
    "containers: {w: {image: a/b:1, mounts: ['d:/d']}}": "1:41 containers.w.mounts[0]: no volume named d",
    "containers: {w: {image: a/b:1, depends_on: [x]}}": "1:45 containers.w.depends_on[0]: no container named x",
    # images
    "images: {a: {}}": "1:10 images.a: an image needs a source",
    "images: {a: {from: b, archive: c}}": "1:10 images.a: an image comes from a registry or from a file, not from both",
    "images: {a: {from: 'B B'}}": '1:20 images.a.from: found "B B"',
    # networks
    "networks: {a: {subnet: 10.0.0.1/24}}": "1:24 networks.a.subnet: 10.0.0.1/24 has host bits set",
    "networks: {a: {subnet: 10.0.0.0/33}}": '1:24 networks.a.subnet: found "10.0.0.0/33"; expected a subnet',
    "networks: {a: {subnet: 10.0.0.0/31}}": "1:24 networks.a.subnet: found a prefix of 31 bits",
    "networks: {a: {subnet: 127.1.0.0/16}}": "1:24 networks.a.subnet: 127.1.0.0/16 is within 127.0.0.0/8, loopback",
    "networks: {a: {subnet: 'fd00::/64'}}": "1:24 networks.a.subnet: IPv6 subnets are not built yet",
    "networks: {a: {gateway: 10.0.0.1}}": "1:16 networks.a.gateway: a gateway needs a subnet",
    "networks: {a: {subnet: 10.0.0.0/24, gateway: 10.0.1.1}}": "1:46 networks.a.gateway: 10.0.1.1 is outside 10.0.0.0/24",
    "networks: {a: {subnet: 10.0.0.0/24, gateway: 10.0.0.255}}": "1:46 networks.a.gateway: 10.0.0.255 is the broadcast add",
    "networks: {a: {subnet: 10.0.0.0/24}, b: {subnet: 10.0.0.128/25}}": "1:50 networks.b.subnet: 10.0.0.128/25 overlaps 10",
    "networks: {host: {driver: bridge}}": "1:12 networks.host: the name host is that of the host network",
    "networks: {h: {driver: host, subnet: 10.0.0.0/24}}": "1:30 networks.h.subnet: a host network has no subnet",
    "networks: {a: {driver: overlay}}": "1:24 networks.a.driver: overlay is not built yet",
    # addresses
    "containers: {w: {image: a/b:1, networks: {default: {ipv4: 10.0.0.2}}}}": (
        "1:59 containers.w.networks.default.ipv4: a fixed address needs a network with a subnet; default takes"
    ),
    # ports
    "containers: {w: {image: a/b:1, ports: [80]}}": '1:40 containers.w.ports[0]: found "80", without a port of the host',
    "containers: {w: {image: a/b:1, ports: ['0:80']}}": '1:40 containers.w.ports[0]: found the host port "0"',
    "containers: {w: {image: a/b:1, ports: ['80:99999']}}": '1:40 containers.w.ports[0]: found the container port "99999"',
    "containers: {w: {image: a/b:1, ports: ['80:80/x']}}": '1:40 containers.w.ports[0]: found the protocol "x"',
    "containers: {w: {image: a/b:1, ports: ['1-3:1-2']}}": "1:40 containers.w.ports[0]: 3 ports of the host for 2",
    "containers: {w: {image: a/b:1, ports: ['3-1:1-3']}}": "1:40 containers.w.ports[0]: found the range 3-1, which ends be",
    "containers: {w: {image: a/b:1, ports: ['1.2.3:1:1']}}": '1:40 containers.w.ports[0]: found the host address "1.2.3"',
    "containers: {w: {image: a/b:1, ports: ['[fd00::1]:1:1']}}": "1:40 containers.w.ports[0]: publishing on an IPv6 addres",
    "containers: {w: {image: a/b:1, ports: ['1:1', '127.0.0.1:1:2']}}": "1:47 containers.w.ports[1]: the host port 127.0.0",
    "containers: {a: {image: a/b:1, ports: ['1:1']}, b: {image: a/b:1, ports: ['1:1']}}": (
        "1:75 containers.b.ports[0]: the host port 0.0.0.0:1/tcp is a's already"
    ),
    "containers: {w: {image: a/b:1, networks: [host], ports: ['1:1']}}": "1:50 containers.w.ports: ports need a bridge net",
    "containers: {w: {image: a/b:1, networks: [host, default]}}": "1:43 containers.w.networks[0]: a container on host can'",
    # mounts
    "containers: {w: {image: a/b:1, mounts: ['/data']}}": '1:41 containers.w.mounts[0]: found "/data"; expected SOURCE:TAR',
    "containers: {w: {image: a/b:1, mounts: ['./a:b']}}": '1:41 containers.w.mounts[0]: found the target "b"; expected an ',
    "containers: {w: {image: a/b:1, mounts: ['./a:/b:z']}}": '1:41 containers.w.mounts[0]: found the option "z"; expected ',
    "containers: {w: {image: a/b:1, mounts: ['~/a:/b']}}": '1:41 containers.w.mounts[0]: found "~/a"; ~ is not expanded',
    "containers: {w: {image: a/b:1, mounts: ['./a:/b', './c:/b/']}}": "1:51 containers.w.mounts[1]: a second mount at /b",
    "containers: {w: {image: a/b:1, mounts: [{type: tmpfs, target: /t, source: a}]}}": (
        "1:67 containers.w.mounts[0].source: a tmpfs mount has no source"
    ),
    "containers: {w: {image: a/b:1, mounts: [{type: bind, target: /t}]}}": "1:41 containers.w.mounts[0]: a bind mount need",
    "containers: {w: {image: a/b:1, mounts: [{type: tmpfs, target: /t, mode: 99}]}}": "1:73 containers.w.mounts[0].mode: f",
    "containers: {w: {image: a/b:1, mounts: [{type: image, source: a, target: /t}]}}": "1:48 containers.w.mounts[0].type: ",
    # the rest
    "containers: {w: {image: a/b:1, command: 'a \"b'}}": "1:41 containers.w.command: a quote is not closed",
    "containers: {w: {image: a/b:1, resources: {memory: 5M}}}": "1:52 containers.w.resources.memory: found 5M; expected at",
    "containers: {w: {image: a/b:1, resources: {memory: 5X}}}": '1:52 containers.w.resources.memory: found "5X"; expected ',
    "containers: {w: {image: a/b:1, resources: {cpus: 0.001}}}": "1:50 containers.w.resources.cpus: found 0.001; expected ",
    "containers: {w: {image: a/b:1, stop_grace: -1}}": "1:44 containers.w.stop_grace: found -1; expected a duration such a",
    "containers: {w: {image: a/b:1, healthcheck: {test: [curl]}}}": "1:53 containers.w.healthcheck.test[0]: the list must ",
    "containers: {w: {image: a/b:1, healthcheck: {test: [CMD]}}}": "1:52 containers.w.healthcheck.test: CMD needs a comman",
    "containers: {w: {image: a/b:1, ulimits: {nofile: {soft: 2, hard: 1}}}}": "1:50 containers.w.ulimits.nofile: the soft ",
    "containers: {w: {image: a/b:1, sysctls: {vm.swappiness: 1}}}": '1:42 containers.w.sysctls."vm.swappiness": found "vm.',
    "containers: {w: {image: a/b:1, networks: [host], sysctls: {net.core.somaxconn: 1}}}": (
        '1:80 containers.w.sysctls."net.core.somaxconn": net.core.somaxconn is the machine\'s own'
    ),
    "containers: {w: {image: a/b:1, extra_hosts: {a: b}}}": '1:49 containers.w.extra_hosts.a: found "b"; expected an IPv4 ',
    "containers: {w: {image: a/b:1, dns: 1.2.3}}": '1:37 containers.w.dns: found "1.2.3"; expected an IPv4 or IPv6',
    "containers: {w: {image: a/b:1, user: 4294967295}}": "1:38 containers.w.user: found 4294967295; expected USER",
    "containers: {w: {image: a/b:1, user: '-1'}}": '1:38 containers.w.user: found "-1"; expected USER',
    "containers: {w: {image: a/b:1, cap_add: [NET_ADMN]}}": '1:42 containers.w.cap_add[0]: found "NET_ADMN"; expected a ca',
    "containers: {w: {image: a/b:1, env: ['A=1', 'A=2']}}": "1:45 containers.w.env[1]: A is here twice",
    "containers: {w: {image: a/b:1, env_file: ./no.env}}": "1:42 containers.w.env_file: no such file: /nonexistent/folder/",
    "containers: {w: {command: a}}": "1:14 containers.w: image is missing",
    "containers: {w: }": "1:14 containers.w: found nothing; expected a map of the container's properties",
    "containers: {w: {image: a/b:1, job: true, restart: always}}": (
        "1:52 containers.w.restart: a job runs once; found restart: always"
    ),
    "containers: {w: {image: a/b:1, job: true, restart: 'on-failure:3'}}": (
        "1:52 containers.w.restart: a job runs once; found restart: on-failure:3"
    ),
    "containers: {x: {image: a/b:1}, w: {image: a/b:1, depends_on: {x: completed}}}": (
        "1:64 containers.w.depends_on.x: x is no job: it never completes"
    ),
    "containers: {x: {image: a/b:1, job: true}, w: {image: a/b:1, depends_on: {x: healthy}}}": (
        "1:75 containers.w.depends_on.x: x is a job: it ends"
    ),
    "volumes: {a: {moved: {from: b}}, b: {}}": (
        "1:29 volumes.a.moved.from: b is declared too: one of the two has its data"
    ),
    "volumes: {a: {moved: {from: a}}}": "1:29 volumes.a.moved.from: that is its own name",
    "volumes: {a: {moved: {from: c}}, b: {moved: {from: c}}}": "1:52 volumes.b.moved.from: c moves to a already",
    "containers: {web: {image: a/b:1}, web-2: {image: a/b:1}}": "1:35 containers.web-2: web-2 is another way to say web/2",
    # what can't run twice
    "containers: {w: {image: a/b:1, job: true, update: {order: start-first}}}": (
        "1:59 containers.w.update.order: w can't start first: a job is done once, and nothing takes its place while it runs"
    ),
    "containers: {w: {image: a/b:1, update: {order: start_first}}}": '1:48 containers.w.update.order: found "start_first"',
    "containers: {w: {image: a/b:1, ports: ['1:1'], update: {order: start-first}}}": (
        "1:64 containers.w.update.order: w can't start first: its host port 0.0.0.0:1/tcp can't be had twice"
    ),
    "update: {order: start-first}\ncontainers: {w: {image: a/b:1, ports: ['1:1']}}": (
        "1:17 update.order: w can't start first: its host port 0.0.0.0:1/tcp can't be had twice"
    ),
    "containers: {w: {image: a/b:1, networks: [host], update: {order: start-first}}}": (
        "1:66 containers.w.update.order: w can't start first: on the host network old and new would listen on the same"
    ),
    "networks: {n: {subnet: 10.9.0.0/24}}\ncontainers: {w: {image: a/b:1, networks: {n: {ipv4: 10.9.0.5}}, update: "
    "{order: start-first}}}": "2:81 containers.w.update.order: w can't start first: its address on n, 10.9.0.5, can't be",
    "volumes: {v: }\ncontainers: {w: {image: a/b:1, mounts: ['v:/v'], update: {order: start-first}}}": (
        "2:66 containers.w.update.order: w can't start first: old and new would both write the volume v (at /v)"
    ),
    "x-only: 1": "1:1 : the manifest names no image, network, volume or container",
}


HEALTH_FAULTS = {
    "{test: a, http: 80}": "healthcheck.http: there is `test` already",
    "{http: /}": 'healthcheck.http: found "/"; expected a port and a path such as :8080/healthz',
    "{http: 'db:80/'}": "healthcheck.http: found the host db; the container itself is asked",
    "{http: ':99999/'}": "healthcheck.http: found port 99999; expected 1 to 65535",
    "{http: ':80/a b'}": "healthcheck.http: the path has a space",
    "{http: {port: 80, status: 300-200}}": "healthcheck.http.status: found 300-200; expected a status",
    "{http: {path: /}}": "healthcheck.http: port is missing",
    "{tcp: ':0'}": 'healthcheck.tcp: found "0"; expected a port',
    "{on_unhealthy: kill}": "healthcheck.on_unhealthy: ",
    "{}": "healthcheck: ",
}


@pytest.mark.parametrize("text", HEALTH_FAULTS)
def test_faults_of_a_health_check(text: str):
    found = brief(f"containers: {{w: {{image: a/b:1, healthcheck: {text}}}}}")
    assert len(found) == 1, found
    assert f"containers.w.{HEALTH_FAULTS[text]}" in found[0]


@pytest.mark.parametrize("text", FAULTS)
def test_each_fault_is_told_once_at_its_place(text: str):
    found = brief(text)
    assert len(found) == 1, found
    expected = FAULTS[text] if text != "x-only: 1" else FAULTS[text].replace("1:1", "-1:1")
    assert found[0].startswith(expected), found[0]


def test_circle_of_dependencies_is_shown_as_the_way_around_it():
    text = """\
    containers:
      c: {image: a/b:1, depends_on: [a]}
      a: {image: a/b:1, depends_on: [b]}
      b: {image: a/b:1, depends_on: {c: healthy}}
    """
    assert brief(text) == ["3:21 containers.a.depends_on: the dependencies go in a circle: a → b → c → a"]


def test_container_that_waits_for_itself_is_a_circle():
    assert "web → web" in told(HEAD + "containers: {web: {image: a/b:1, depends_on: [web]}}")


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.1.5", "10.0.0.300"])
def test_fixed_address_must_be_a_free_one_of_its_subnet(address: str):
    text = "networks: {n: {subnet: 10.0.0.0/24}}\n"
    text += f"containers: {{w: {{image: a/b:1, networks: {{n: {{ipv4: {address}}}}}}}}}"
    found = brief(text)
    assert len(found) == 1
    assert found[0].startswith("2:53 containers.w.networks.n.ipv4: ")
    assert address in found[0]


def test_one_address_for_two_containers_is_refused():
    text = (
        "networks: {n: {subnet: 10.0.0.0/24}}\ncontainers:\n  a: {image: a/b:1, networks: {n: {ipv4: 10.0.0.5}}}\n"
        "  b: {image: a/b:1, networks: {n: {ipv4: 10.0.0.5}}}\n"
    )
    assert brief(text) == ["4:42 containers.b.networks.n.ipv4: 10.0.0.5 is a's already"]


def test_fault_of_a_network_brings_no_second_one_where_it_is_used():
    text = "networks: {n: {subnet: 10.0.0.1/24}}\ncontainers: {w: {image: a/b:1, networks: {n: {ipv4: 10.0.0.5}}}}"
    assert len(brief(text)) == 1
    text = "networks: {n: {driver: macvlan}}\ncontainers: {w: {image: a/b:1, networks: {n: {ipv4: 10.0.0.5}}}}"
    assert len(brief(text)) == 1
    text = "networks: {n: 3}\nvolumes: {v: 3}\nimages: {i: 3}\ncontainers: {w: {image: i, networks: [n], mounts: ['v:/v']}}"
    assert [line.split(":")[0] for line in brief(text)] == ["1", "2", "3"]


def test_entry_of_a_list_that_does_not_fit_keeps_the_places_of_the_others():
    found = brief("containers: {w: {image: a/b:1, mounts: [{typo: 1, target: /a}, 'd:/d']}}")
    assert [line.split(" ")[1] for line in found] == [
        "containers.w.mounts[0].typo:",
        "containers.w.mounts[1]:",
    ]


HOSTILE_NAMES = [
    "a;reboot",
    "$(id)",
    "a b",
    "../x",
    ".",
    "..",
    "a\nb",
    "a\n",
    "-a",
    "a}",
    'a"',
    "a'",
    "A",
    "ä",
    "a" * 64,
    "a" * 1000,
    "a/b",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("section", ["containers", "networks", "volumes", "images"])
def test_b9_and_d2_names_with_syntax_of_others_are_refused(section: str, name: str):
    body = {"containers": "{image: a/b:1}", "networks": "{}", "volumes": "{}", "images": "{from: a/b:1}"}[section]
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("$", "$")
    found = problems(f'{HEAD}{section}: {{"{quoted}": {body}}}\n')
    assert len(found) == 1
    assert "expected a name of at most 63" in found[0].text
    assert len(found[0].text) < 400


@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES if name not in ("A",)])
def test_b9_hostnames_and_aliases_with_syntax_of_others_are_refused(name: str):
    quoted = name.replace("$", "$$").replace('"', '\\"').replace("\n", "\\n")
    hostname = problems(f'{HEAD}containers: {{w: {{image: a/b:1, hostname: "{quoted}"}}}}\n')
    alias = problems(f'{HEAD}containers: {{w: {{image: a/b:1, networks: {{default: {{aliases: ["{quoted}"]}}}}}}}}\n')
    assert [problem.path for problem in (*hostname, *alias)] == [
        "containers.w.hostname",
        "containers.w.networks.default.aliases[0]",
    ]


@pytest.mark.parametrize("target", ["/", "//", "/.", "/proc", "/proc/sys", "/a/../proc", "/proc/", "//proc"])
def test_b5_nothing_is_mounted_over_the_root_or_proc(target: str):
    assert len(brief(f"containers: {{w: {{image: a/b:1, mounts: ['./a:{target}']}}}}")) == 1


NOT_NAMESPACED = ["vm.swappiness", "kernel.core_pattern", "kernel.modprobe", "fs.suid_dumpable", "kernel.shm_rmid_forced+x"]


@pytest.mark.parametrize("name", [*NOT_NAMESPACED, "net/../kernel/core_pattern", "net.ipv4.conf.all\n", "net.core/../../x"])
def test_b7_sysctls_of_the_machine_are_refused(name: str):
    quoted = name.replace("\n", "\\n")
    assert len(brief(f'containers: {{w: {{image: a/b:1, sysctls: {{"{quoted}": 1}}}}}}')) == 1


@pytest.mark.parametrize("path", ["../x", "/etc", "a/../../b", ".."])
def test_d2_subpath_that_leaves_the_volume_is_refused(path: str):
    text = f"volumes: {{v: }}\ncontainers: {{w: {{image: a/b:1, mounts: [{{source: v, target: /v, subpath: {path}}}]}}}}"
    assert len(brief(text)) == 1


@pytest.mark.parametrize("name", ["run", "Blog", "", "a" * 64])
def test_stack_names_that_are_reserved_or_no_names_are_refused(name: str):
    found = problems(f'apiVersion: reconcile/v1\nname: "{name}"\nvolumes: {{v: }}\n')
    assert [problem.path for problem in found] == ["name"]


def test_more_than_two_hundred_problems_are_counted_not_shown():
    text = HEAD + "containers:\n" + "".join(f"  c{number}: {{image: a/b:1, typo: 1}}\n" for number in range(500))
    found = problems(text)
    assert len(found) == 201
    assert found[-1].text == "and 300 more problems"


def test_very_long_lines_are_not_shown():
    found = told(HEAD + "x-a: " + "a" * 5000 + "\ncontainers: {w: {image: a/b:1, restart: " + "b" * 5000 + "}}\n")
    assert len(found) < 700
