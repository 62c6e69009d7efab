"""The processes of `cpro serve`; the only place where parts are wired together."""
