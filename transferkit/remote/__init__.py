"""A repository of a registry as a source and a target, over ``transport`` and ``protocol``."""
