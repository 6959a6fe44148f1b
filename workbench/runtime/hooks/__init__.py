"""The hooks of a session, one file per kind of site; each adds its handles to an exit stack and shares the scene."""
