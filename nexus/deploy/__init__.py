"""From trained models to what runs elsewhere."""

from nexus.deploy.backends import BackendModel, to_backend

__all__ = ["BackendModel", "to_backend"]
