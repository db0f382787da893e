"""Names for containers that were given none: easily read, said and typed."""

import secrets

_HOW = (
    "amber brave brisk calm clever cosy dry early eager fair fast fine frank fresh glad grand green happy "
    "honest humble keen kind light lively loyal lucky mellow merry mild neat nimble noble plain proud "
    "quick quiet ready round sharp shy silent smart snug soft solid steady still sunny swift tidy tiny "
    "upbeat warm wise witty young"
)
_WHO = (
    "alder aspen badger beaver birch bison cedar crane curlew dipper dormouse egret elm falcon finch fir "
    "fox gannet hare hawk hazel heron holly ibis jay kestrel kite lark linden lynx maple marten merlin "
    "mole newt oak osprey otter owl pine plover poplar quail raven robin rook rowan sable seal shrew "
    "siskin sorrel stoat swan tern thrush vole weasel willow wren yew"
)


def choose_name() -> str:
    """`brave-otter`."""
    return f"{secrets.choice(_HOW.split())}-{secrets.choice(_WHO.split())}"
