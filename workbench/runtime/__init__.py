"""The one place where model, plan, signals and store meet."""
