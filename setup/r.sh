#!/bin/sh
# R and the packages of the mixed-effects models, from the system's package manager.
# Does nothing when they are there; where it may not install, it says what to run.
packages="r-base-core r-cran-lme4 r-cran-lmertest r-cran-broom.mixed r-cran-dplyr r-cran-glmmtmb r-cran-clubsandwich"
libraries='c("lme4", "lmerTest", "broom.mixed", "dplyr", "glmmTMB", "clubSandwich")'

if command -v Rscript >/dev/null 2>&1 &&
	Rscript -e "quit(status = !all(nzchar(sapply($libraries, function(p) system.file(package = p)))))" >/dev/null 2>&1; then
	exit 0
fi

command="apt-get install --yes --no-install-recommends $packages"
if ! command -v apt-get >/dev/null 2>&1; then
	echo "R with the packages lme4, lmerTest, broom.mixed, dplyr, glmmTMB and clubSandwich is missing: install them with your package manager or conda (envs/r.yaml)." >&2
	exit 1
elif [ "$(id -u)" = 0 ]; then
	sudo=""
elif sudo -n true 2>/dev/null; then
	sudo="sudo"
else
	echo "R is missing. Run: sudo $command" >&2
	exit 1
fi
echo "Installing R and its packages with apt-get"
$sudo apt-get update --quiet=2 && $sudo env DEBIAN_FRONTEND=noninteractive $command --quiet=2 >/dev/null
