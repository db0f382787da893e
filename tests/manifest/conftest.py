"""Properties of this folder have no deadline a case: the machine may be busy with others."""

from hypothesis import settings

settings.register_profile("manifest", deadline=None)
settings.load_profile("manifest")
