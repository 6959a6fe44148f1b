"""The C backend: sources beside this file, compiled on first use (`build`) and called without torch's headers (`loader`)."""
