# Every target works twice in a row and from any directory (`make -C path lab`).
#   make lab    [TORCH=cpu|cuda] [ARGS="--no-browser"]   make .venv, install, open JupyterLab
#   make demo   the same work without a browser        make check   lint, types, fast tests (minutes)
#   make test   everything, browser included           make matrix  other versions, in .venvs of their own
#   make clean  remove what these made
HERE := $(dir $(realpath $(lastword $(MAKEFILE_LIST))))
SCRIPTS := $(HERE)scripts
export TORCH PYTHON

.DEFAULT_GOAL := help
.PHONY: help lab demo check test matrix clean

help:
	@sed -n '2,5s/^#  //p' "$(HERE)Makefile"

lab:
	@"$(SCRIPTS)/install"
	@cd "$(HERE)" && exec .venv/bin/workbench lab $(ARGS)

demo:
	@"$(SCRIPTS)/install"
	@cd "$(HERE)" && exec .venv/bin/workbench demo $(ARGS)

check:
	@"$(SCRIPTS)/install" test
	@"$(SCRIPTS)/check" -m "not slow" $(ARGS)

test:
	@"$(SCRIPTS)/install" test
	@"$(SCRIPTS)/browser"
	@"$(SCRIPTS)/check" $(ARGS)

matrix:
	@"$(SCRIPTS)/matrix" $(ARGS)

clean:
	@"$(SCRIPTS)/clean"
