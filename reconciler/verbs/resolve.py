"""Stacks → stacks with what they name outside read, and facts: the one step that asks outside. Stores nothing.

Env files, configs, secrets and small files bound read-only are read here and nowhere else (`contents.py`); afterwards a
stack says so (`sources` is None), and is what a revision keeps: resolved again it is left as it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import structs

from reconciler.engine.protocol import ImageDriver
from reconciler.manifest.envfile import parse_env_text
from reconciler.manifest.files import HERE, Files
from reconciler.model.errors import BadManifest, Problem, ReconcileError, RegistryError
from reconciler.model.key import Key
from reconciler.model.record import Desired, ImageFact, Record, Stack
from reconciler.model.spec import ContainerSpec, ImageSpec, Sensitive, Spec
from reconciler.verbs.agekeys import AgeKeys
from reconciler.verbs.contents import Reader

ENV_FILE_LIMIT = 1 << 20
"""Bytes of one env file."""


def resolve(
    stacks: Sequence[Stack],
    *,
    images: ImageDriver,
    records: Mapping[Key, Record],
    keyed: Callable[[bytes], str],
    keys: AgeKeys,
    offline: bool = False,
    ask_tags: bool = False,
    files: Files = HERE,
) -> Desired:
    """Read what the stacks name outside. `keyed` gives the digest of what is not to be guessed by it, `keys` open
    what is encrypted; all is read of `files`.

    With `ask_tags` registries are asked whether locked tags have moved. Raises BadManifest for files, and what image
    drivers raise.
    """
    reader = Reader(keyed, keys, files)
    read = tuple(_read(stack, reader) for stack in stacks)
    if reader.problems:
        raise BadManifest(reader.problems)
    wanted = [(key, spec) for stack in read for key, spec in stack.specs.items() if isinstance(spec, ImageSpec)]

    def ask(item: tuple[Key, ImageSpec]) -> ImageFact:
        key, spec = item
        record = records.get(key)
        same = record is not None and isinstance(record.spec, ImageSpec) and _source(record.spec) == _source(spec)
        tag = locked.get(key, "")
        try:
            fact = images.resolve(key, spec, recorded=record.image if record and same else "", offline=offline)
        except RegistryError as error:
            if tag and not error.retry:
                error.hint = _say_update(tag, key, stacks)
            raise
        moved = _moved(tag, spec, images, silent) if tag and ask_tags else ""
        return structs.replace(fact, warning="; ".join(filter(None, (fact.warning, moved)))) if moved else fact

    locked = {key: tag for stack in stacks for key, tag in _locked_tags(stack)}
    silent: set[str] = set()
    if len(wanted) < 2:
        facts = [ask(item) for item in wanted]
    else:
        with ThreadPoolExecutor(min(8, len(wanted)), thread_name_prefix="resolve") as executor:
            facts = list(executor.map(ask, wanted))
    return Desired(
        stacks=read,
        images={key: fact for (key, _), fact in zip(wanted, facts, strict=True)},
        contents=reader.contents,
        live=reader.live,
    )


def _locked_tags(stack: Stack) -> Iterator[tuple[Key, str]]:
    """The images that a lock file pins, with the tag that the manifest has."""
    for key, spec in stack.specs.items() if stack.lock is not None else ():
        tag = spec.reference.partition("@")[0] if isinstance(spec, ImageSpec) else ""
        if stack.lock is not None and tag in stack.lock.digests:
            yield key, tag


def _say_update(tag: str, key: Key, stacks: Sequence[Stack]) -> str:
    stack = next(stack for stack in stacks if key in stack.specs)
    assert stack.lock is not None
    command = f"`reconcile lock --update {tag} {stack.source}`"
    return f"{stack.lock.file} names that digest: where it is gone, {command} takes what the tag names now"


def _moved(tag: str, spec: ImageSpec, images: ImageDriver, silent: set[str]) -> str:
    """That a locked tag names something else by now, or nothing. "" where its registry does not answer: nothing depends on
    it, and one that is in `silent` is not waited for again."""
    registry = tag.partition("/")[0]
    if registry in silent:
        return ""
    try:
        now = images.read_tag(tag)
    except ReconcileError as error:
        if error.retry:
            silent.add(registry)
            return ""
        return f"whether the tag has moved since it was locked can't be told: {error.brief}"
    was = spec.reference.partition("@")[2]
    if now == was:
        return ""
    return f"the tag has moved since it was locked: {was[:19]} → {now[:19]}; `reconcile lock --update` takes that"


def _source(spec: ImageSpec) -> tuple[str, str]:
    return (spec.reference, spec.archive)


def _read(stack: Stack, reader: Reader) -> Stack:
    if stack.sources is None:
        return stack
    specs = {key: _with_env_file(key, spec, reader) for key, spec in stack.specs.items()}
    return structs.replace(stack, specs=reader.read(stack, specs), sources=None)


def _with_env_file(key: Key, spec: Spec, reader: Reader) -> Spec:
    """`env` wins over `env_file`, a later file over an earlier one. Values of files are sensitive."""
    if not isinstance(spec, ContainerSpec) or not spec.env_file:
        return spec
    env: dict[str, str | Sensitive] = {}
    for name in spec.env_file:
        env |= _read_env_file(key, name, reader)
    return structs.replace(spec, env=dict(sorted({**env, **spec.env}.items())))


def _read_env_file(key: Key, path: str, reader: Reader) -> dict[str, Sensitive]:
    why = ""
    try:
        data = reader.files.read(path, ENV_FILE_LIMIT)
        why = "it is larger than 1 MiB" if len(data) > ENV_FILE_LIMIT else ""
        values = parse_env_text(data.decode(), file=path) if not why else {}
    except OSError as error:
        why = error.strerror or str(error)
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    except BadManifest as error:
        reader.problems.extend(error.problems)
        return {}
    if why:
        reader.problems.append(Problem(file=path, text=f"the env_file of {key} can't be read: {why}"))
        return {}
    return {name: Sensitive(value) for name, value in values.items()}
